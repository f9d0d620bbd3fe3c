import json
import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime, check_grad
from scipy.special import expit

from reward_models.rater_estimation import (
    Answered,
    Estimate,
    estimate_raters,
    negative_log_posterior,
    observed_information,
    population_description,
)
from textenv.errors import TextenvError

RATIONALITY = np.array([3.0, 2.0, 1.0, 1.0, 0.5, 0.0, -1.0])
POSITION, LENGTH = 0.4, 0.05


def simulated(labels_from, seed: int, items: int, per_item: int = 3):
    rng = np.random.default_rng(seed)
    raters = len(RATIONALITY)
    item = np.repeat(np.arange(items), per_item)
    rater = rng.permuted(np.tile(np.arange(raters), (items, 1)), axis=1)[:, :per_item].ravel()
    utility = rng.normal(size=(items, 2))[item]
    length = rng.integers(4, 25, size=(items, 2))[item]
    swapped = rng.random(len(item)) < 0.5
    utility, length = (np.where(swapped[:, None], both[:, ::-1], both) for both in (utility, length))
    chance = expit(
        RATIONALITY[rater] * (utility[:, 0] - utility[:, 1]) + POSITION + LENGTH * (length[:, 0] - length[:, 1])
    )
    order = rng.permutation(len(item))
    labels = labels_from(
        item, [f"rater-{number}" for number in rater], rng.random(len(item)) < chance, swapped=swapped,
        first_length=length[:, 0].astype(np.int32), second_length=length[:, 1].astype(np.int32),
    )  # fmt: skip
    return labels[order]


def by_name(estimate):
    return dict(zip(estimate.raters, estimate.rationality, strict=True))


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say(labels_from):
    held, raters_held = [], []
    for seed in range(40):
        estimate = estimate_raters(simulated(labels_from, seed, 100))
        for found, truth in ((estimate.position, POSITION), (estimate.length, LENGTH)):
            low, high = found.interval()
            held.append(low <= truth <= high)
        for number, truth in enumerate(RATIONALITY):
            low, high = by_name(estimate)[f"rater-{number}"].interval()
            raters_held.append(low <= truth <= high)
    assert 0.88 <= np.mean(held) <= 1
    assert 0.88 <= np.mean(raters_held) <= 1


def test_many_labels_tell_the_parameters(labels_from):
    estimate = estimate_raters(simulated(labels_from, 0, 1000))
    found = [by_name(estimate)[f"rater-{number}"] for number in range(7)]
    for each, truth in zip([*found, estimate.position, estimate.length], [*RATIONALITY, POSITION, LENGTH], strict=True):
        low, high = each.interval(z=3.5)
        assert low < truth < high
    assert max(each.error for each in found[2:]) < 0.25
    assert (estimate.position.error, estimate.length.error) < (0.08, 0.01)
    assert (estimate.labels, estimate.items) == (3000, 1000)


def test_gradient_and_information_are_those_of_differences():
    rng = np.random.default_rng(0)
    data = Answered(
        start=np.arange(0, 60, 3),
        rater=rng.integers(4, size=60),
        label=rng.choice([0.0, 0.5, 1.0], size=60),
        side=rng.choice([-1.0, 1.0], size=60),
        length=rng.normal(size=60),
    )
    at = rng.normal(size=6)
    assert check_grad(
        lambda x: negative_log_posterior(x, data)[0], lambda x: negative_log_posterior(x, data)[1], at
    ) < (1e-4)
    numeric = approx_fprime(at, lambda x: negative_log_posterior(x, data)[1], 1e-6)
    np.testing.assert_allclose(observed_information(at, data), numeric, atol=1e-3)


def test_the_information_of_a_known_case():
    # Without any rationality what is left is a logistic regression on a constant: n·p·(1 − p), and the prior's.
    n, p = 90, 0.7
    rng = np.random.default_rng(0)
    data = Answered(np.arange(n), np.zeros(n, int), rng.choice([0.0, 1.0], size=n), np.ones(n), np.zeros(n))
    information = observed_information(np.array([0.0, math.log(p / (1 - p)), 0.0]), data)
    assert information[1, 1] == pytest.approx(n * p * (1 - p) + 1 / 100)
    assert information[2, 2] == pytest.approx(1 / 100)


def test_an_interval_is_even_near_zero_and_a_factor_far_out():
    assert Estimate(0.0, 0.01).interval() == pytest.approx((-0.0196, 0.0196), abs=1e-5)
    low, high = Estimate(100.0, 20.0).interval()
    assert low * high == pytest.approx(100**2, rel=0.01)
    assert high / 100 == pytest.approx(math.exp(1.96 * 0.2), rel=0.01)


def test_a_population_imitates_the_raters(labels_from):
    estimate = estimate_raters(simulated(labels_from, 0, 300))
    described = json.loads(json.dumps(population_description(estimate, "town")))
    assert described["name"] == "town"
    assert (described["raters"], described["recruiting"]) == (7, "stratified")
    assert described["groups"].keys() == {f"rater-{number}" for number in range(7)}
    good, liar = described["groups"]["rater-1"], described["groups"]["rater-6"]
    assert good["rationality"] * good["position_bias"] == pytest.approx(estimate.position.value)
    assert good["rationality"] * good["length_bias"] == pytest.approx(estimate.length.value)
    assert "adversary" not in good
    assert liar["adversary"] == 1
    assert liar["rationality"] > 0


def test_lengths_that_never_differ_tell_nothing(labels_from):
    labels = labels_from([0, 0, 1, 1], ["ann", "bob"] * 2, [1, 1, 0, 1])
    assert estimate_raters(labels).length == Estimate(0.0, math.inf)


def test_items_that_nobody_shares_are_refused(labels_from):
    with pytest.raises(TextenvError, match="raters-per-item"):
        estimate_raters(labels_from([0, 1], ["ann", "bob"], [1, 0]))
    with pytest.raises(TextenvError, match="of 0 answers"):
        estimate_raters(labels_from([0, 0], ["ann", "bob"], [np.nan, np.nan]))
