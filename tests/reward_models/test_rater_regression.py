import numpy as np
import pytest
from scipy.optimize import approx_fprime, check_grad
from scipy.special import expit

from reward_models.rater_estimation import estimate_raters
from reward_models.rater_regression import Judged, information, negative_log_posterior, regress_raters
from textenv.errors import TextenvError

BETA, POSITION, LENGTH = np.array([4.0, 2.0, 1.0, 0.5, -1.0]), 0.4, 0.05


def answers(labels_from, seed, items=120, bias=LENGTH):
    """Longer responses are better, so that labels alone take that for a bias."""
    rng = np.random.default_rng(seed)
    item, rater = np.repeat(np.arange(items), len(BETA)), np.tile(np.arange(len(BETA)), items)
    lengths = rng.integers(4, 25, size=(items, 2))
    utility = rng.standard_normal((items, 2)) + 0.1 * lengths
    shown = np.where((rng.random(len(item)) < 0.5)[:, None], [1, 0], [0, 1])
    u, y = np.take_along_axis(utility[item], shown, 1), np.take_along_axis(lengths[item], shown, 1)
    chance = expit(BETA[rater] * (u[:, 0] - u[:, 1]) + POSITION + bias * (y[:, 0] - y[:, 1]))
    return labels_from(
        item, [f"rater-{number}" for number in rater], rng.random(len(item)) < chance, swapped=shown[:, 0] == 1,
        first_length=y[:, 0].astype(np.int32), second_length=y[:, 1].astype(np.int32),
        utility_first=u[:, 0].astype(np.float32), utility_second=u[:, 1].astype(np.float32),
    )  # fmt: skip


def test_intervals_cover_the_truth_as_often_as_they_say(labels_from):
    truth = [*BETA, POSITION, LENGTH]
    held = []
    for seed in range(40):
        found = regress_raters(answers(labels_from, seed))
        estimates = [*found.rationality, found.position, found.length]
        held.append([low <= value <= high for value, (low, high) in
                     zip(truth, (each.interval() for each in estimates), strict=True)])  # fmt: skip
    # 280 intervals of 95 %: less than 0.915 has a probability of 1 %.
    assert 0.915 <= np.mean(held) <= 1


def test_length_is_told_from_worth_where_the_utilities_are_known(labels_from):
    labels = answers(labels_from, 0, items=600, bias=0.0)
    labels = labels[labels.rater != "rater-4"]  # All but who wants the worse.
    known, alone = regress_raters(labels).length, estimate_raters(labels).length
    assert abs(known.value) < 2 * known.error
    assert alone.value > 5 * alone.error


def test_gradient_and_information_are_those_of_differences():
    rng = np.random.default_rng(0)
    data = Judged(np.array([0, 1, 2, 0, 1, 2]), rng.integers(2, size=6) * 1.0, rng.normal(size=6), rng.normal(size=6))
    point = rng.normal(size=5)
    assert check_grad(*(lambda p, part=part: negative_log_posterior(p, data)[part] for part in (0, 1)), point) < 1e-5
    numeric = approx_fprime(point, lambda p: negative_log_posterior(p, data)[1], 1e-6)
    np.testing.assert_allclose(information(point, data), numeric, atol=1e-4)


def test_unknown_utilities_are_refused(labels_from):
    with pytest.raises(TextenvError, match="2 of 2 answers have none"):
        regress_raters(labels_from([0, 1], ["ann", "bob"], [1, 0]))
    with pytest.raises(TextenvError, match="there is no answer"):
        regress_raters(labels_from([0], ["ann"], [np.nan]))
