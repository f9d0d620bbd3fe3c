import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit
from scipy.stats import kendalltau, spearmanr

from reward_models.crowd_bt import Comparisons, Priors, crowd_bt, negative_log_posterior

ACCURACY = np.array([0.95, 0.8, 0.6, 0.5, 0.1])


def priors(raters: int, regularisation: float = 0.1) -> Priors:
    return Priors(regularisation, np.full(raters, 2.0), np.full(raters, 1.0))


def pool(seed: int) -> tuple[np.ndarray, Comparisons]:
    """Twelve ranked things, 600 comparisons by five raters who are right at their own rate."""
    rng = np.random.default_rng(seed)
    rank = rng.permutation(12).astype(float)
    first = rng.integers(12, size=600)
    second = (first + rng.integers(1, 12, size=600)) % 12
    rater = np.arange(600) % 5
    right = rng.random(600) < ACCURACY[rater]
    return rank, Comparisons(first, second, rater, ((rank[first] > rank[second]) == right).astype(float))


def test_the_ranking_and_the_reliabilities_are_recovered_in_spite_of_an_adversary():
    spearman, kendall, by_wins, errors = [], [], [], []
    for seed in range(5):
        rank, data = pool(seed)
        fitted = crowd_bt(data, priors(5))
        # The majority's ranking: by the share of the comparisons that each thing won.
        wins = np.bincount(data.first, data.label, 12) + np.bincount(data.second, 1 - data.label, 12)
        wins /= np.bincount(data.first, minlength=12) + np.bincount(data.second, minlength=12)
        spearman.append(spearmanr(fitted.score, rank).statistic)
        kendall.append(kendalltau(fitted.score, rank).statistic)
        by_wins.append(kendalltau(wins, rank).statistic)
        errors.append(np.abs(fitted.reliability - ACCURACY).max())
    assert np.median(spearman) >= 0.95
    assert np.median(kendall) >= 0.9
    assert np.median(kendall) > np.median(by_wins) + 0.2
    assert np.median(errors) <= 0.1


def test_the_objective_worked_out_by_hand():
    # s = (ln 3, 0), η = 3/4: P(first) = 3/4·3/4 + 1/4·1/4 = 5/8; the virtual thing: σ(ln 3)·σ(−ln 3) = 3/16 and 1/4.
    data = Comparisons(np.array([0]), np.array([1]), np.array([0]), np.array([1.0]))
    value, _ = negative_log_posterior(np.array([np.log(3), 0.0, np.log(3)]), data, priors(1, 0.5))
    wanted = np.log(5 / 8) + 0.5 * np.log(3 / 16 / 4) + 2 * np.log(3 / 4) + np.log(1 / 4)
    assert value == pytest.approx(-wanted)


def test_the_gradient_is_that_of_differences():
    _, data = pool(0)
    rng = np.random.default_rng(1)
    data = data._replace(label=np.where(rng.random(600) < 0.1, 0.5, data.label))
    for _ in range(5):
        at = rng.normal(size=17)
        error = check_grad(
            lambda x: negative_log_posterior(x, data, priors(5))[0],
            lambda x: negative_log_posterior(x, data, priors(5))[1],
            at,
        )
        assert error < 1e-3


def test_without_noise_it_is_the_model_of_bradley_and_terry():
    # Many comparisons of three things by raters who are surely reliable: differences of scores are log-odds.
    score = np.array([1.0, 0.0, -1.5])
    pairs = [(0, 1), (1, 2), (0, 2)]
    first, second = (np.array([pair[side] for pair in pairs for _ in range(2)]) for side in (0, 1))
    label = np.array([side for _ in pairs for side in (1.0, 0.0)])
    chance = expit(score[first] - score[second])
    times = np.round(20_000 * np.where(label == 1, chance, 1 - chance)).astype(int)
    first, second, label = (np.repeat(column, times) for column in (first, second, label))
    sure = Priors(1e-6, np.full(1, 1e9), np.full(1, 1e-3))
    fitted = crowd_bt(Comparisons(first, second, np.zeros(len(first), int), label), sure)
    np.testing.assert_allclose(fitted.score - fitted.score[1], score, atol=0.02)


def test_answers_that_cannot_be_are_refused():
    one = np.zeros(1, int)
    with pytest.raises(ValueError, match="length"):
        crowd_bt(Comparisons(one, one, np.zeros(2, int), np.ones(1)), priors(1))
    with pytest.raises(ValueError, match="between 0 and 1"):
        crowd_bt(Comparisons(one, one + 1, one, np.full(1, 2.0)), priors(1))
