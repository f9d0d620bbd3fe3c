import math

import numpy as np
import pytest
from scipy.stats import binomtest

from reward_models.audit import AuditConfig, audit
from reward_models.calibration import BetaPosterior
from reward_models.consensus import votes_of
from reward_models.rater_measures import drift, seconds_per_label, shares
from reward_models.reliability import accuracy_posterior, right_probability
from textenv.errors import TextenvError, UsageError

QUICK = AuditConfig(resamples=50)


def audited(labels, config=QUICK):
    result = audit(labels, config, np.random.default_rng(0))
    return result, {each.rater: each for each in result.verdicts}


def test_the_accuracy_posterior_is_that_of_beta_where_the_truth_is_known():
    rater = np.array([0] * 10 + [1] * 4)
    right = np.array([1.0] * 8 + [0] * 2 + [0.5] * 4)
    posterior = accuracy_posterior(rater, right, 3)
    exact = BetaPosterior(np.array([9.0, 1, 1]), np.array([3.0, 1, 1]))
    np.testing.assert_allclose(posterior.mean, exact.mean, atol=1e-4)
    np.testing.assert_allclose(posterior.above(0.6), exact.above(0.6), atol=1e-3)
    np.testing.assert_allclose(posterior.interval(), exact.interval(), atol=1 / 200)


def test_nobody_judges_oneself(labels_from):
    # Ann alone on item 0: nothing is told. On item 1 Bob is the only other.
    votes = votes_of(labels_from([0, 1, 1], ["ann", "ann", "bob"], [1, 1, 1]))
    right = right_probability(votes)
    assert right[0] == pytest.approx(0.5, abs=0.1)
    assert right[1] == pytest.approx(right[2], abs=1e-3)
    # What Ann says does not move what the others say of her answer.
    other = right_probability(votes_of(labels_from([0, 1, 1], ["ann", "ann", "bob"], [1, 0, 1])))
    assert right[1] > 0.5 > other[1]


def test_accuracies_are_recovered_and_their_intervals_hold_the_truth(label_pool):
    accuracy = np.linspace(0.4, 0.95, 10)
    held = []
    for seed in range(10):
        result, _ = audited(label_pool(accuracy, 150, seed), AuditConfig(resamples=0))
        interval = result.accuracy.interval()
        held.append((interval[:, 0] <= accuracy) & (accuracy <= interval[:, 1]))
        assert np.abs(result.accuracy.mean - accuracy).max() < 0.15
    assert 0.88 <= np.mean(held) <= 1


def test_the_useful_are_kept_and_the_useless_dropped(label_pool):
    result, verdicts = audited(label_pool((0.95, 0.85, 0.8, 0.75, 0.5, 0.1), 250, 0))
    assert [verdicts[f"rater-{number}"].verdict for number in range(6)] == ["keep"] * 4 + ["drop"] * 2
    assert "right 1" in verdicts["rater-5"].evidence[0]
    assert [each.verdict for each in result.verdicts] == ["drop"] * 2 + ["keep"] * 4
    assert result.verdicts[0].rater == "rater-5"
    assert (result.count("drop"), result.count("watch"), result.count("keep")) == (2, 0, 4)
    np.testing.assert_allclose(result.measures.true.share, (0.95, 0.85, 0.8, 0.75, 0.5, 0.1), atol=0.08)


def test_few_labels_and_a_coin_are_watched(label_pool):
    _, verdicts = audited(label_pool((0.9, 0.9, 0.9), 20, 0))
    assert {each.verdict for each in verdicts.values()} == {"watch"}
    assert "only 20 answers" in verdicts["rater-0"].evidence[0]
    _, verdicts = audited(label_pool((0.9, 0.9, 0.9, 0.53), 40, 1))
    assert verdicts["rater-3"].verdict == "watch"
    assert "not surely better than a coin" in verdicts["rater-3"].evidence[0]


def test_gold_questions_tell_who_is_right_against_the_majority(label_pool):
    accuracy = (0.9, 0.9, 0.1, 0.1, 0.1)
    _, blind = audited(label_pool(accuracy, 200, 0))
    _, told = audited(label_pool(accuracy, 200, 0, gold_rate=0.3))
    assert blind["rater-0"].verdict == "drop"
    assert [told[f"rater-{number}"].verdict for number in (0, 1)] == ["keep", "keep"] or all(
        told[f"rater-{number}"].verdict == "watch" and "agrees" in told[f"rater-{number}"].evidence[0]
        for number in (0, 1)
    )
    assert {told[f"rater-{number}"].verdict for number in (2, 3, 4)} == {"drop"}


def test_a_taste_of_ones_own_is_no_noise(labels_from):
    """Five of one taste, one that answers the opposite, steadily, and one by a coin; everybody is asked twice."""
    rng = np.random.default_rng(0)
    items, raters = 100, 7
    item = np.repeat(np.arange(items), 2 * raters)
    rater = np.tile(np.repeat(np.arange(raters), 2), items)
    swapped = np.tile([False, True], items * raters)
    truth = rng.integers(2, size=items)[item]
    right = rng.random(len(item)) < np.array([0.93] * 5 + [0.07, 0.5])[rater]
    answer = np.where(right, truth, 1 - truth)
    names = np.array([f"rater-{number}" for number in rater], dtype=object)
    labels = labels_from(item, names, np.where(swapped, 1 - answer, answer), swapped=swapped)
    result, verdicts = audited(labels)
    assert [verdicts[f"rater-{number}"].verdict for number in range(7)] == ["keep"] * 5 + ["minority", "drop"]
    assert "disagrees with the others, but not with itself: 8" in verdicts["rater-5"].evidence[0]
    assert result.count("minority") == 1
    # Gold questions tell it to be wrong: then it is no matter of taste.
    gold = item < 20
    known = np.where(gold, np.where(swapped, 1 - truth, truth), np.nan).astype(np.float32)
    told = labels_from(item, names, labels.label, swapped=swapped, gold=gold, gold_answer=known)
    assert audited(told)[1]["rater-5"].verdict == "drop"


def test_kappa_is_told_where_all_items_have_as_many_answers(labels_from):
    # Of two items with two answers each one is agreed on: (1/2 − 5/8)/(1 − 5/8) = −1/3.
    labels = labels_from([0, 0, 1, 1], ["ann", "bob"] * 2, [1, 1, 1, 0])
    assert audited(labels)[0].kappa == pytest.approx(-1 / 3)
    assert math.isnan(audited(labels_from([0, 0, 1], ["ann", "bob", "ann"], [1, 1, 0]))[0].kappa)


def test_leaning_hurry_and_swapped_answers_are_seen(labels_from):
    rng = np.random.default_rng(0)
    items, raters = 80, 4
    item = np.repeat(np.arange(items), 2 * raters)
    rater = np.tile(np.repeat(np.arange(raters), 2), items)
    swapped = np.tile([False, True], items * raters)
    truth = rng.integers(2, size=items)[item]
    answer = np.where(rng.random(len(item)) < 0.9, truth, 1 - truth)
    shown = np.where(swapped, 1 - answer, answer)
    shown[rater == 3] = 1  # Always what is shown first, and at once.
    time = np.zeros(len(item))
    for number in range(raters):
        rows = rater == number
        time[rows] = np.arange(1, rows.sum() + 1) * (1.0 if number == 3 else 9.0)
    labels = labels_from(item, [f"rater-{number}" for number in rater], shown, swapped=swapped, session_time=time)
    result, verdicts = audited(labels)
    assert verdicts["rater-3"].verdict == "drop"
    evidence = " | ".join(verdicts["rater-3"].evidence)
    assert "only 0 % of 80 answers stay the same" in evidence
    assert "100 % of its answers are for what is shown first" in evidence
    assert "takes 1.0 s a label, the pool 9.0 s" in evidence
    assert {verdicts[f"rater-{number}"].verdict for number in range(3)} == {"keep"}
    assert result.measures.swap.share[:3] == pytest.approx([0.82] * 3, abs=0.1)


def test_drift_is_the_trend_test():
    # One rater gets worse by 40 points an hour, one does not; p is that of z = r·√n.
    rng = np.random.default_rng(0)
    hours, rater = np.tile(np.linspace(0, 1, 400), 2), np.repeat([0, 1], 400)
    right = (rng.random(800) < np.where(rater == 0, 0.95 - 0.4 * hours, 0.8)).astype(float)
    found = drift(rater, hours, right, 2)
    assert found.slope[0] == pytest.approx(-0.4, abs=0.12)
    assert found.p[0] < 1e-5
    assert found.p[1] > 0.01
    assert -0.4 < found.pool_slope < 0
    x, y = hours[:400], right[:400]
    r = np.corrcoef(x, y)[0, 1]
    assert found.p[0] == pytest.approx(math.erfc(abs(r) * math.sqrt(400) / math.sqrt(2)))
    assert math.isnan(drift(np.zeros(2, int), np.zeros(2), np.ones(2), 1).slope[0])


def test_the_trend_test_errs_as_often_as_it_says():
    rng = np.random.default_rng(1)
    rater, hours = np.repeat(np.arange(400), 50), rng.random(20_000)
    p = drift(rater, hours, (rng.random(20_000) < 0.8).astype(float), 400).p
    assert binomtest(int((p < 0.05).sum()), 400, 0.05).pvalue > 0.01


def test_seconds_are_counted_within_a_session(labels_from):
    labels = labels_from(
        [0, 1, 2, 3, 4], ["ann", "bob", "ann", "ann", "bob"], [1] * 5,
        session=np.array([0, 0, 0, 1, 0], dtype=np.int32), session_time=np.array([4.0, 2, 9, 3, 8]),
    )  # fmt: skip
    assert seconds_per_label(labels).tolist() == [4, 2, 5, 3, 6]


def test_shares_leave_out_what_is_unknown():
    found = shares(np.array([0, 0, 2]), np.array([1.0, np.nan, 0.5]), 3)
    np.testing.assert_array_equal(found.share, [1, np.nan, 0.5])
    assert found.answers.tolist() == [1, 0, 1]
    assert found.pool == 0.75


def test_labels_without_any_answer_are_refused(labels_from):
    with pytest.raises(TextenvError, match="every question was skipped"):
        audited(labels_from([0], ["ann"], [np.nan]))


@pytest.mark.parametrize(
    ("name", "value"),
    [("useful_accuracy", 0.5), ("confidence", 1.0), ("fewest_labels", 0), ("hurry", 1.0), ("resamples", -1)],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        AuditConfig(**{name: value})
