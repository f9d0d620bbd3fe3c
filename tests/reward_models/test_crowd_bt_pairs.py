import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.special import expit
from scipy.stats import norm

from reward_models.crowd_bt_pairs import SPREAD, negative_log_posterior, pair_answers, pair_crowd_bt


def simulated(seed: int, items: int, per_item: int, reliability: np.ndarray) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(items), per_item)
    rater = rng.permuted(np.tile(np.arange(len(reliability)), (items, 1)), axis=1)[:, :per_item].ravel()
    difference = SPREAD * rng.normal(size=items)
    reliable = expit(difference)[item]
    chance = reliability[rater] * reliable + (1 - reliability[rater]) * (1 - reliable)
    return item, rater, (rng.random(len(item)) < chance).astype(float), difference > 0


def answers_of(item, rater, label, raters):
    return pair_answers(item, rater, label, np.full(raters, 2.0), np.full(raters, 1.0))


def test_reliabilities_and_pairs_are_recovered_from_three_answers_each():
    reliability = np.array([0.98, 0.9, 0.8, 0.7, 0.6, 0.5, 0.2])
    item, rater, label, first_better = simulated(0, 6000, 3, reliability)
    fitted = pair_crowd_bt(answers_of(item, rater, label, 7))
    np.testing.assert_allclose(fitted.reliability, reliability, atol=0.06)
    votes = np.bincount(item, 2 * label - 1)
    by_majority = ((votes > 0) == first_better).mean()
    assert ((fitted.probability > 0.5) == first_better).mean() > by_majority + 0.05
    assert fitted.probability.mean() == pytest.approx(first_better.mean(), abs=0.02)


def test_the_marginal_likelihood_is_the_integral():
    eta = np.array([0.9, 0.6])
    answers = pair_answers(np.array([0, 0]), np.array([0, 1]), np.array([1.0, 0.0]), np.zeros(2), np.zeros(2))
    value, _, posterior = negative_log_posterior(np.log(eta / (1 - eta)), answers)

    def joint(d: float) -> float:
        first = eta * expit(d) + (1 - eta) * expit(-d)
        return float(norm.pdf(d, scale=SPREAD) * first[0] * (1 - first[1]))

    whole = quad(joint, -40, 40)[0]
    assert value == pytest.approx(-np.log(whole), abs=1e-3)
    mean = quad(lambda d: joint(d) * expit(d), -40, 40)[0] / whole
    assert pair_mean(posterior) == pytest.approx(mean, abs=1e-3)


def pair_mean(posterior: np.ndarray) -> float:
    return float(posterior[0] @ expit(np.linspace(-8, 8, posterior.shape[1])))


def test_the_gradient_is_that_of_differences():
    item, rater, label, _ = simulated(1, 50, 3, np.array([0.9, 0.7, 0.4, 0.6]))
    label[::7] = 0.5
    answers = answers_of(item, rater, label, 4)
    for seed in range(3):
        at = np.random.default_rng(seed).normal(size=4)
        error = check_grad(
            lambda x: negative_log_posterior(x, answers)[0], lambda x: negative_log_posterior(x, answers)[1], at
        )
        assert error < 1e-4


def test_turning_every_pair_round_turns_the_answers_round():
    item, rater, label, _ = simulated(2, 100, 3, np.array([0.9, 0.8, 0.7, 0.3]))
    one, other = (pair_crowd_bt(answers_of(item, rater, turned, 4)) for turned in (label, 1 - label))
    np.testing.assert_allclose(one.probability, 1 - other.probability, atol=1e-6)
    np.testing.assert_allclose(one.reliability, other.reliability, atol=1e-6)


def test_answers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="lengths"):
        answers_of(np.zeros(2, int), np.zeros(1, int), np.zeros(1), 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        answers_of(np.zeros(1, int), np.zeros(1, int), np.full(1, 1.5), 1)
