"""Surveys: who is asked what and when, and what is kept of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.consensus import consensus
from reward_models.labels import Labels
from reward_models.raters.crowd import Crowd
from reward_models.raters.curves import choice_curves
from reward_models.raters.material import Material
from reward_models.schedules import assign
from reward_models.sessions import SECONDS_PER_DECISION, SECONDS_PER_TOKEN, sessions
from reward_models.surveys import gold_questions, survey
from textenv.errors import UsageError


def material(utility: list[float]) -> Material:
    """Responses of 1, 2, 3, … tokens to prompts of 10."""
    count = len(utility)
    return Material(
        np.array(utility)[:, None], np.ones(1), ("utility",), np.arange(1, count + 1), np.full(count, 10),
        np.zeros(count, dtype=np.int64),
    )  # fmt: skip


def crowd(size: int, groups: tuple[str | None, ...] | None = None, **traits: float) -> Crowd:
    names = tuple(f"r{number}" for number in range(size))
    values = {key: np.full(size, value) for key, value in traits.items()}
    return Crowd(names, groups or (None,) * size, values, cost=np.full(size, 0.5))


ITEMS = np.array([[0, 1], [2, 3], [1, 2]])
FOUR = material([0.0, 1.0, 3.0, 2.0])


def asked(people: Crowd, items: Any = ITEMS, seed: int = 0, about: Material = FOUR, **how: Any) -> Any:
    return survey(people, about, items, np.random.default_rng(seed), **how)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.integers(0, 99))
def test_each_item_has_different_raters_and_work_is_shared(raters: int, wanted: int, items: int, seed: int) -> None:
    wanted = min(wanted, raters)
    dealt = assign(raters, items, wanted, np.random.default_rng(seed))
    assert dealt.shape == (items, wanted)
    assert all(len(set(hand)) == wanted for hand in dealt.tolist())
    # One pack after the other: nobody has an item more than there were packs, shuffled or whole.
    packs = math.ceil(items / (raters // wanted))
    assert np.bincount(dealt.ravel(), minlength=raters).max(initial=0) <= packs


def test_sure_raters_give_the_truth_in_whatever_order() -> None:
    result = asked(crowd(3), np.repeat(ITEMS, 40, 0), raters_per_item=3)
    labels: Labels = result.labels
    assert len(labels) == 360
    np.testing.assert_array_equal(labels.label, labels.utility_first > labels.utility_second)
    np.testing.assert_array_equal(result.probability, labels.label)
    np.testing.assert_array_equal(labels.item_label, np.repeat([0, 1, 0], 120))
    assert 140 < labels.swapped.sum() < 220
    # Lengths and sources are those of what was shown.
    shown = np.repeat(np.repeat(ITEMS, 40, 0), 3, 0)
    shown[labels.swapped] = shown[labels.swapped, ::-1]
    np.testing.assert_array_equal(labels.first_length, shown[:, 0] + 1)
    np.testing.assert_array_equal(labels.second_length, shown[:, 1] + 1)
    assert set(labels.first_source) == {"reference"}


def test_time_passes_for_everybody_alone() -> None:
    labels = asked(crowd(2), raters_per_item=2).labels
    seconds = SECONDS_PER_DECISION + SECONDS_PER_TOKEN * (10 + labels.first_length + labels.second_length)
    for name in ("r0", "r1"):
        np.testing.assert_allclose(labels.session_time[labels.rater == name], seconds[labels.rater == name].cumsum())
    assert set(labels.session) == {0}


def test_sessions_worked_out_by_hand() -> None:
    # Rater 0 works 4 s a question and rests after 10: at 4, 8, 12 (begun at 8), and at 6 of the next session.
    result = sessions(np.array([0, 1, 0, 0, 0]), np.array([4.0, 11.0, 4.0, 4.0, 4.0]), 10.0)
    assert result.worked.tolist() == [4, 11, 8, 12, 16]
    assert result.session.tolist() == [0, 0, 0, 0, 1]
    assert result.session_time.tolist() == [4, 11, 8, 12, 6]


def test_money_is_never_overspent() -> None:
    result = asked(crowd(3), np.repeat(ITEMS, 5, 0), raters_per_item=2, money=4.9)
    assert len(result.labels) == 9
    assert result.cost == 4.5
    assert len(asked(crowd(3), raters_per_item=3, money=4.5).labels) == 9
    with pytest.raises(UsageError, match=r"0\.4 of money does not pay for an answer, which costs 0\.5"):
        asked(crowd(3), money=0.4)


def test_gold_questions_have_a_right_answer() -> None:
    utility = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [0.0, 0.0]])
    for seed in range(20):
        assert gold_questions(utility, 0.5, np.random.default_rng(seed)).tolist() == [True, False, True, False]
    with pytest.raises(UsageError, match="3 gold questions were asked for, but only 2 of the 4 items have a better"):
        gold_questions(utility, 0.75, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"rate of gold questions is 1\.5, expected a number in \[0, 1\]"):
        gold_questions(utility, 1.5, np.random.default_rng(0))
    labels = asked(crowd(2), np.repeat(ITEMS, 10, 0), raters_per_item=2, gold_rate=0.4).labels
    assert labels.gold.sum() == 24
    np.testing.assert_array_equal(labels.gold_answer[labels.gold], labels.label[labels.gold])
    assert np.isnan(labels.gold_answer[~labels.gold]).all()


def test_one_group_has_one_belief() -> None:
    people = crowd(6, ("a", "a", "a", "b", "b", "b"), confirmation=9.0)
    labels = asked(people, np.tile([[0, 0]], (200, 1)), raters_per_item=6).labels
    verdicts = {}
    for name in ("a", "b"):
        answers = labels.item_label[labels.group == name].reshape(200, 3)
        assert (answers == answers[:, :1]).all()
        verdicts[name] = answers[:, 0]
        assert 65 < verdicts[name].sum() < 135
    assert 65 < (verdicts["a"] == verdicts["b"]).sum() < 135


def test_sources_are_kept_and_the_winner_is_expected_to_win() -> None:
    both = dataclasses.replace(
        material([0.0] * 4 + [1.0] * 4), sources=np.repeat([0, 1], 4), source_names=("old", "new")
    )
    items = np.tile([[0, 4], [1, 5]], (100, 1))
    labels = asked(crowd(1, rationality=1.0, expectation=4.0), items, about=both).labels
    new_won = np.where(labels.first_source == "new", labels.label, 1 - labels.label)
    # σ(1) = 0.73 at first, σ(1 + 2·4·0.46…) ≈ 1 once the new source has won more often.
    assert new_won[50:].mean() > 0.95
    assert {*labels.first_source, *labels.second_source} == {"old", "new"}


def test_too_few_people() -> None:
    with pytest.raises(UsageError, match="each item is to be answered by 4 raters, but there are 3"):
        asked(crowd(3), raters_per_item=4)


def test_answers_are_averaged_without_the_skipped() -> None:
    labels = asked(crowd(3), raters_per_item=3).labels
    label = np.array([1, 0, 1, np.nan, 0.5, np.nan, np.nan, np.nan, np.nan], dtype=np.float32)
    swapped = np.array([False, False, True] * 3)
    changed = Labels(**{**labels.columns(), "label": label, "swapped": swapped})
    result = consensus(changed, "mean")
    assert result.item.tolist() == [0, 1]
    np.testing.assert_allclose(result.label, [(1 + 0 + 0) / 3, 0.5])


def test_curves_are_the_expected_labels() -> None:
    people = crowd(2, rationality=1.0, mistake=0.1, confirmation=0.0)
    curves = choice_curves(people, np.array([-np.log(3), 0.0, np.log(3)]))
    np.testing.assert_allclose(curves, [[0.3, 0.5, 0.7]] * 2, atol=1e-6)
    leaning = choice_curves(crowd(1, rationality=1.0, confirmation=np.log(3), fatigue=1.0), np.array([0.0]))
    assert leaning[0, 0] == pytest.approx(0.5)
