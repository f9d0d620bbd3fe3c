import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.agreement import (
    agreement_with_others,
    answer_counts,
    expected_agreement,
    fleiss_kappa,
    krippendorff_alpha,
    paired_answers,
)
from textenv.errors import TextenvError

NONE = math.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
)
"""Krippendorff 2011, section C: four observers, twelve units, answers missing."""

FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
"""Fourteen raters, ten subjects, five categories; the published κ is 0.210."""


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def long_format(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, item = np.nonzero(~np.isnan(table))
    return item, table[~np.isnan(table)]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_the_published_one(level, alpha):
    found = krippendorff_alpha(*long_format(KRIPPENDORFF), level, generator(), resamples=200)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.low < found.value < found.high


def test_alpha_of_two_observers_is_the_published_one():
    # Krippendorff 2011, sections A and B: α is 0.095 for two values, 0.692 for five names.
    binary = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]], dtype=float)
    assert krippendorff_alpha(*long_format(binary), "nominal", generator(), resamples=0).value == pytest.approx(
        0.095, abs=5e-4
    )
    names = np.array([list("aabbdcccedda"), list("babbbccceddd")])
    codes = np.unique(names, return_inverse=True)[1].reshape(2, -1).astype(float)
    assert krippendorff_alpha(*long_format(codes), "nominal", generator(), resamples=0).value == pytest.approx(
        0.692, abs=5e-4
    )


def test_alpha_knows_perfection_chance_and_what_it_cannot_tell():
    item = np.repeat(np.arange(3000), 2)
    answer = np.repeat(generator().integers(2, size=3000), 2).astype(float)
    assert krippendorff_alpha(item, answer, "nominal", generator(), resamples=0).value == 1
    clicks = generator().integers(2, size=6000).astype(float)
    chance = krippendorff_alpha(item, clicks, "nominal", generator(), resamples=200)
    # Of 3000 pairs the standard error is 1/√3000.
    assert abs(chance.value) < 3 / math.sqrt(3000)
    assert chance.high - chance.low == pytest.approx(2 * 1.96 / math.sqrt(3000), rel=0.2)
    assert math.isnan(krippendorff_alpha(item, np.ones(6000), "nominal", generator(), resamples=5).value)
    with pytest.raises(TextenvError, match="two raters"):
        krippendorff_alpha(np.arange(3), np.ones(3), "nominal", generator())


def test_the_intervals_of_alpha_hold_the_truth():
    # Two raters of accuracy 0.8 agree at 0.68; with even answers chance is 1/2, so that α is 0.36.
    rng, held = generator(), 0
    for _ in range(60):
        truth = rng.integers(2, size=200)
        wrong = rng.random((2, 200)) < 0.2
        answer = np.where(wrong, 1 - truth, truth).astype(float)
        found = krippendorff_alpha(np.tile(np.arange(200), 2), answer.ravel(), "nominal", rng, resamples=200)
        held += found.low <= 0.36 <= found.high
    assert 52 <= held <= 60


def test_kappa_is_the_published_one():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    item = np.repeat(np.arange(10), 14)
    answer = np.concatenate([np.repeat(np.arange(5.0), row) for row in FLEISS])
    counts, values = answer_counts(item, answer)
    np.testing.assert_array_equal(counts, FLEISS)
    np.testing.assert_array_equal(values, np.arange(5))


def test_kappa_wants_as_many_answers_to_every_item():
    with pytest.raises(TextenvError, match="from 1 to 2"):
        fleiss_kappa(np.array([[1, 1], [0, 1]]))
    with pytest.raises(TextenvError, match="no items"):
        fleiss_kappa(np.zeros((0, 2)))
    assert math.isnan(fleiss_kappa(np.array([[2, 0], [2, 0]])))


def test_agreement_with_others_worked_out_by_hand():
    # Item 0: ann twice (1, 1), bob 1, eve 0. Item 1: ann alone.
    item, rater = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 2, 0])
    share = agreement_with_others(item, rater, np.array([1.0, 1, 1, 0, 1]))
    np.testing.assert_allclose(share, [1 / 2, 1 / 2, 2 / 3, 0, np.nan])


@given(st.floats(0, 1), st.floats(0, 1))
def test_expected_agreement_is_that_of_all_outcomes(a, b):
    outcomes = [(x, y, (a if x else 1 - a) * (b if y else 1 - b)) for x in (0, 1) for y in (0, 1)]
    assert expected_agreement(a, b) == pytest.approx(sum(p for x, y, p in outcomes if x == y))
    assert expected_agreement(a, a) == pytest.approx(a**2 + (1 - a) ** 2)


def test_two_raters_agree_as_often_as_they_should():
    rng, n = generator(), 40_000
    truth = rng.integers(2, size=n)
    answers = np.where(rng.random((2, n)) < 0.8, truth, 1 - truth).astype(float)
    share = agreement_with_others(np.tile(np.arange(n), 2), np.repeat([0, 1], n), answers.ravel())
    assert share.mean() == pytest.approx(expected_agreement(0.8, 0.8), abs=0.01)
    # AlpacaFarm flips a quarter of the labels: of each of the two raters, and of one of them.
    flipped = np.where(rng.random((2, n)) < 0.25, 1 - answers, answers)
    once = expected_agreement(expected_agreement(0.8, 0.8), 0.75)
    assert once == pytest.approx(0.25 + 0.68 / 2)
    assert (flipped[0] == answers[1]).mean() == pytest.approx(once, abs=0.01)
    assert (flipped[0] == flipped[1]).mean() == pytest.approx(expected_agreement(once, 0.75), abs=0.01)


def test_answers_given_twice_are_found_by_order_and_across():
    #         item 0: first, swapped, first again; item 1: swapped, first; item 2 once; another rater's item 0
    item = np.array([0, 0, 0, 1, 1, 2, 0])
    rater = np.array([0, 0, 0, 0, 0, 0, 1])
    swapped = np.array([False, True, False, True, False, False, True])
    answer = np.array([1.0, 1, 0, 1, 0, 1, 0])
    across = paired_answers(item, rater, swapped, answer, across_orders=True)
    assert sorted(zip(across.rater.tolist(), across.equal.tolist(), strict=True)) == [(0, False), (0, True)]
    within = paired_answers(item, rater, swapped, answer, across_orders=False)
    assert (within.rater.tolist(), within.equal.tolist()) == ([0], [False])
