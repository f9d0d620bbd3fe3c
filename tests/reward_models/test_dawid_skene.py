import numpy as np
import pytest
from scipy.optimize import minimize

from reward_models.dawid_skene import dawid_skene


def one_hot(answer, classes):
    return np.eye(classes)[answer]


def simulated(seed: int, items: int, confusion: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every rater answers every item."""
    rng = np.random.default_rng(seed)
    raters, classes, _ = confusion.shape
    truth = rng.integers(classes, size=items)
    item, rater = np.repeat(np.arange(items), raters), np.tile(np.arange(raters), items)
    answer = (rng.random((len(item), 1)) > confusion[rater, truth[item]].cumsum(axis=1)).sum(axis=1)
    return item, rater, answer, truth


CONFUSION = np.array(
    [
        [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]],
        [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]],
        [[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]],
        [[1 / 3] * 3] * 3,
    ]
)


def test_classes_and_confusions_are_recovered():
    item, rater, answer, truth = simulated(0, 4000, CONFUSION)
    fitted = dawid_skene(item, rater, one_hot(answer, 3))
    np.testing.assert_allclose(fitted.confusion, CONFUSION, atol=0.06)
    np.testing.assert_allclose(fitted.prior, 1 / 3, atol=0.04)
    np.testing.assert_allclose(fitted.accuracy, np.einsum("ktt->k", CONFUSION) / 3, atol=0.04)
    counts = np.zeros((4000, 3))
    np.add.at(counts, item, one_hot(answer, 3))
    by_majority = (counts.argmax(axis=1) == truth).mean()
    assert (fitted.posterior.argmax(axis=1) == truth).mean() > by_majority + 0.04


def test_em_never_loses_ground_and_ends_at_a_maximum():
    item, rater, answer, _ = simulated(1, 60, CONFUSION)
    fitted = dawid_skene(item, rater, one_hot(answer, 3), tolerance=1e-10)
    steps = np.diff(fitted.objective)
    assert (steps > -1e-9).all()
    assert len(steps) > 3

    def objective(parameters: np.ndarray) -> float:
        logs = parameters.reshape(-1, 3)
        logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
        prior, confusion = logs[0], logs[1:].reshape(4, 3, 3)
        joint = np.tile(prior, (60, 1))
        np.add.at(joint, item, confusion[rater, :, answer])
        return -float(np.log(np.exp(joint).sum(axis=1)).sum() + logs.sum())  # smoothing 1

    at = np.concatenate([np.log(fitted.prior), np.log(fitted.confusion).ravel()])
    assert -objective(at) == pytest.approx(fitted.objective[-1], abs=1e-6)
    assert minimize(objective, at, method="BFGS", options={"maxiter": 20}).fun > objective(at) - 1e-4


def test_one_answer_worked_out_by_hand():
    # One rater says class 1 of one item. With a smoothing of 1 and q = P(class 1), the M-step gives the prior
    # (1 + q)/3 and the confusions π[1, 1] = (1 + q)/(2 + q), π[0, 1] = (2 - q)/(3 - q); the E-step's q is that of EM's
    # end where it gives itself.
    fitted = dawid_skene(np.array([0]), np.array([0]), one_hot([1], 2), tolerance=1e-14)
    q = fitted.posterior[0, 1]
    one, zero = (1 + q) / 3 * (1 + q) / (2 + q), (2 - q) / 3 * (2 - q) / (3 - q)
    assert q == pytest.approx(one / (one + zero), abs=1e-9)
    assert 0.5 < q < 1


def test_known_classes_stay_and_teach_who_errs():
    # Two honest raters against three liars: the majority is wrong, unless some truths are known.
    accuracy = np.array([0.9, 0.9, 0.2, 0.2, 0.2])
    confusion = np.stack([1 - accuracy, accuracy], axis=1)[:, [[1, 0], [0, 1]]]
    item, rater, answer, truth = simulated(2, 200, confusion)
    known = np.full((200, 2), np.nan)
    known[:30] = one_hot(truth[:30], 2)
    blind = dawid_skene(item, rater, one_hot(answer, 2))
    told = dawid_skene(item, rater, one_hot(answer, 2), known=known)
    assert (blind.posterior.argmax(axis=1) == truth).mean() < 0.2
    assert (told.posterior.argmax(axis=1) == truth)[30:].mean() > 0.9
    np.testing.assert_array_equal(told.posterior[:30], known[:30])
    np.testing.assert_allclose(told.accuracy, accuracy, atol=0.1)
    assert (np.diff(told.objective) > -1e-9).all()


def test_a_divided_answer_is_two_halves():
    item, rater = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 2])
    divided = np.array([[0.5, 0.5], [0, 1], [1, 0], [1, 0], [0.5, 0.5]])
    fitted = dawid_skene(item, rater, divided)
    # The same as halves given twice, each answer counted one half.
    halves = dawid_skene(np.tile(item, 2), np.tile(rater, 2), np.concatenate([divided * [1, 0], divided * [0, 1]]))
    np.testing.assert_allclose(fitted.posterior, halves.posterior, atol=1e-9)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rows"):
        dawid_skene(np.zeros(2, int), np.zeros(3, int), np.ones((2, 2)))
    with pytest.raises(ValueError, match="smoothing"):
        dawid_skene(np.zeros(1, int), np.zeros(1, int), np.ones((1, 2)), smoothing=0)
    with pytest.raises(ValueError, match="known"):
        dawid_skene(np.zeros(1, int), np.zeros(1, int), np.ones((1, 2)), known=np.ones((2, 2)))
