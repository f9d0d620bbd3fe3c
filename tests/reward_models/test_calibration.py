import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_models.calibration import BetaPosterior, gold_answers, train, trusted, weighted_vote, weights
from textenv.errors import UsageError

NONE = np.nan


def test_gold_answers_are_counted_and_nothing_else(labels_from):
    labels = labels_from(
        [0, 1, 2, 3, 4, 5], ["ann", "ann", "ann", "bob", "ann", "bob"], [1, 0, 0.5, NONE, 1, 0],
        gold=np.array([True, True, True, True, False, False]),
        gold_answer=np.array([1, 1, 0, 1, NONE, NONE], dtype=np.float32),
    )  # fmt: skip
    answers = gold_answers(labels)
    assert answers.raters == ["ann", "bob"]
    assert answers.right.tolist() == [1.5, 0]
    assert answers.wrong.tolist() == [1.5, 0]
    posterior = answers.posterior()
    assert posterior.mean.tolist() == [0.5, 0.5]
    with pytest.raises(UsageError, match="above 0"):
        answers.posterior(a=0)


def test_the_posterior_is_that_of_beta():
    # Beta(9, 2), of 8 right answers and 1 wrong one: P(p > 1/2) = P(at most 8 of 10 coins … ) = 1 − 11/1024.
    posterior = BetaPosterior(np.array([9.0, 1.0]), np.array([2.0, 1.0]))
    np.testing.assert_allclose(posterior.mean, [9 / 11, 1 / 2])
    np.testing.assert_allclose(posterior.above(0.5), [1 - 11 / 1024, 1 / 2])
    np.testing.assert_allclose(posterior.interval(0.5)[1], [0.25, 0.75])
    # ψ(9) − ψ(2) = 1/2 + 1/3 + … + 1/8.
    np.testing.assert_allclose(weights(posterior), [sum(1 / k for k in range(2, 9)), 0], atol=1e-12)
    # Nothing speaks against whom nothing is known of. Beta(1, 9), of 8 wrong ones: P(p < 3/10) = 1 − 0.7⁹ = 0.96.
    few = BetaPosterior(np.array([9.0, 1.0, 1.0]), np.array([2.0, 1.0, 9.0]))
    assert trusted(few).tolist() == [True, True, False]
    assert trusted(few, useful=0.3).tolist() == [True, True, False]
    assert trusted(few, useful=0.28).tolist() == [True, True, True]
    with pytest.raises(UsageError, match=r"useful .* got 1\.5"):
        trusted(posterior, useful=1.5)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    reliability = rng.random(4000)
    right = rng.binomial(25, reliability)
    interval = BetaPosterior(1.0 + right, 26.0 - right).interval(0.9)
    held = ((interval[:, 0] < reliability) & (reliability < interval[:, 1])).mean()
    assert held == pytest.approx(0.9, abs=0.015)


def test_a_weighted_vote_is_the_rule_of_bayes():
    # Reliabilities 0.9, 0.6 and 0.6 as exact log-odds: the one outvotes the two, and by 9·(2/3)² = 4 to 1.
    reliability = np.array([0.9, 0.6, 0.6])
    vote = weighted_vote(np.zeros(3, int), np.arange(3), np.array([1.0, 0, 0]), np.log(reliability / (1 - reliability)))
    assert vote == pytest.approx([0.8])


@given(st.floats(0, 1), st.integers(0, 200))
def test_training_moves_towards_the_goal_and_is_paid_for(mistake, questions):
    trained = train({"mistake": np.array([mistake])}, {"mistake": 0.02}, np.array([questions]))
    value = trained.parameters["mistake"][0]
    assert min(mistake, 0.02) - 1e-12 <= value <= max(mistake, 0.02) + 1e-12
    assert value == pytest.approx(0.02 + (mistake - 0.02) * np.exp(-questions / 20))
    assert trained.labels == questions


def test_training_changes_what_it_is_told_to():
    raters = {"mistake": np.array([0.3, 0.3]), "rationality": np.array([1.0, 2.0])}
    trained = train(raters, {"mistake": 0.0}, np.array([0, 20]))
    np.testing.assert_allclose(trained.parameters["mistake"], [0.3, 0.3 / np.e])
    np.testing.assert_array_equal(trained.parameters["rationality"], [1.0, 2.0])
    np.testing.assert_array_equal(raters["mistake"], [0.3, 0.3])
    assert trained.labels == 20
    with pytest.raises(UsageError, match="Did you mean 'mistake'"):
        train(raters, {"mistakes": 0.0}, np.array([1, 1]))
    with pytest.raises(UsageError, match="0 or more"):
        train(raters, {}, np.array([-1, 1]))
