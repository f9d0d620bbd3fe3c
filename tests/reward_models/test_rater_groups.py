import numpy as np
import pytest
from scipy.special import expit

from reward_models.rater_groups import find_groups, logistic
from textenv.errors import UsageError


def simulated(weights: np.ndarray, group: np.ndarray, answers: int, seed: int):
    rng = np.random.default_rng(seed)
    rater = np.repeat(np.arange(len(group)), answers)
    difference = rng.normal(size=(len(rater), weights.shape[1]))
    label = rng.random(len(rater)) < expit((difference * weights[group[rater]]).sum(axis=1))
    return rater, difference, label.astype(float)


def test_groups_are_found_with_their_tastes_and_members():
    # 20 who like the first feature, 10 who like the second and dislike the first, 6 who click at random.
    weights = np.array([[1.5, 0.0, 0.2], [-1.0, 1.5, 0.2], [0.0, 0.0, 0.0]])
    group = np.repeat([0, 1, 2], [20, 10, 6])
    found = find_groups(*simulated(weights, group, 100, 0), np.random.default_rng(0))
    assert len(found.share) == 3
    np.testing.assert_allclose(found.share, [20 / 36, 10 / 36, 6 / 36], atol=0.03)
    np.testing.assert_allclose(found.weights, weights, atol=0.25)
    assert (found.membership.argmax(axis=1) == group).mean() > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_people_of_one_kind_are_one_group(seed):
    data = simulated(np.array([[1.0, -0.5]]), np.zeros(20, int), 60, seed)
    found = find_groups(*data, np.random.default_rng(0))
    assert found.share.tolist() == [1.0]
    np.testing.assert_allclose(found.weights[0], [1.0, -0.5], atol=0.25)


def test_a_logistic_regression_ends_where_its_gradient_is_zero():
    rng = np.random.default_rng(0)
    x, label, count = rng.normal(size=(50, 3)), rng.choice([0, 0.5, 1], size=50), rng.random(50)
    weights = logistic(x, label, count, np.full(3, 5.0))
    np.testing.assert_allclose(x.T @ (count * (label - expit(x @ weights))), weights, atol=1e-3)


def test_what_cannot_be_grouped_is_refused():
    with pytest.raises(UsageError, match="groups need answers"):
        find_groups(np.zeros(0, int), np.zeros((0, 2)), np.zeros(0), np.random.default_rng(0))
    with pytest.raises(ValueError, match="lengths"):
        find_groups(np.zeros(2, int), np.zeros((1, 2)), np.zeros(2), np.random.default_rng(0))
