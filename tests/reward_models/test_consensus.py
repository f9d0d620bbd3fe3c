import numpy as np
import pytest

from reward_models.consensus import METHODS, consensus, votes_of
from textenv.errors import TextenvError, UsageError

NONE = np.nan
ACCURACY = (0.95, 0.8, 0.6, 0.5, 0.1)


def truth_of(labels):
    """The right answer to each item in the item's order."""
    first = labels.utility_first > labels.utility_second
    _, place = np.unique(labels.item, return_index=True)
    return np.where(labels.swapped, ~first, first)[place].astype(float)


def test_votes_are_turned_to_the_order_of_the_item(labels_from):
    labels = labels_from(
        [7, 7, 3, 3, 9], ["ann", "bob", "ann", "bob", "cid"], [1, 1, 0.5, NONE, NONE],
        swapped=np.array([False, True, True, False, False]),
        gold=np.array([False, True, False, False, True]),
        gold_answer=np.array([NONE, 1, NONE, NONE, 0], dtype=np.float32),
    )  # fmt: skip
    votes = votes_of(labels)
    assert votes.items.tolist() == [3, 7]
    assert votes.raters == ["ann", "bob"]
    assert votes.items[votes.item].tolist() == [7, 7, 3]
    assert votes.label.tolist() == [1, 0, 0.5]
    # Bob said that the first shown is better, which is right, and is the item's second.
    np.testing.assert_array_equal(votes.gold, [NONE, 0])
    assert (votes.right.tolist(), votes.wrong.tolist()) == ([0, 1], [0, 0])


def test_the_majority_worked_out_by_hand(labels_from):
    labels = labels_from(
        [0, 0, 0, 1, 1, 2, 2, 3], ["ann", "bob", "cid", "ann", "bob", "ann", "cid", "bob"],
        [1, 1, 0, 1, 0, 0.5, 0, NONE],
    )  # fmt: skip
    result = consensus(labels, "majority")
    assert result.item.tolist() == [0, 1, 2]
    assert result.label.tolist() == [1, 0.5, 0]
    # Ann: right on 0, half on 1 (a draw) and half on 2 (a tie). Bob: 1 and 1/2. Cid: 0 and 1.
    assert dict(zip(result.rater, result.reliability.tolist(), strict=True)) == pytest.approx(
        {"ann": 2 / 3, "bob": 3 / 4, "cid": 1 / 2}
    )


@pytest.mark.parametrize("method", ["dawid-skene", "crowd-bt"])
def test_who_errs_is_found_out_and_the_majority_beaten(label_pool, method):
    gains = []
    for seed in range(5):
        labels = label_pool(ACCURACY, 200, seed)
        truth = truth_of(labels)
        result = consensus(labels, method)
        right = np.round(result.label) == truth
        gains.append(right.mean() - (consensus(labels, "majority").label == truth).mean())
        assert right.mean() > 0.93
    assert min(gains) > 0.1
    tolerance = 0.1 if method == "dawid-skene" else 0.15  # Crowd-BT counts close pairs as hard, and here none is.
    np.testing.assert_allclose(result.reliability, ACCURACY, atol=tolerance)


def test_gold_questions_turn_a_pool_of_liars(label_pool):
    labels = label_pool((0.9, 0.9, 0.2, 0.2, 0.2), 300, 0, gold_rate=0.1)
    truth = truth_of(labels)
    unknown = np.arange(300) >= 30
    blind = consensus(label_pool((0.9, 0.9, 0.2, 0.2, 0.2), 300, 0), "majority")
    assert (blind.label == truth)[unknown].mean() < 0.5
    for method in ("dawid-skene", "crowd-bt", "gold"):
        result = consensus(labels, method)
        np.testing.assert_array_equal(result.label[~unknown], truth[~unknown])
        assert (np.round(result.label) == truth)[unknown].mean() > 0.9
    assert result.reliability == pytest.approx([0.9, 0.9, 0.2, 0.2, 0.2], abs=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_labels_and_reliabilities_are_probabilities_whatever_was_answered(labels_from, method):
    rng = np.random.default_rng(0)
    for n in (1, 2, 30):
        gold = rng.random(n) < 0.3
        labels = labels_from(
            rng.integers(5, size=n), [f"r{k}" for k in rng.integers(3, size=n)], rng.choice([0, 0.5, 1], size=n),
            swapped=rng.random(n) < 0.5, gold=gold,
            gold_answer=np.where(gold, rng.choice([0.0, 1.0], size=n), NONE).astype(np.float32),
        )  # fmt: skip
        result = consensus(labels, method)
        for value in (result.label, result.reliability):
            assert ((value >= 0) & (value <= 1)).all()
        assert len(result.label) == len(result.item)
        assert len(result.reliability) == len(result.rater)


def test_what_cannot_be_done_is_said(labels_from):
    labels = labels_from([0], ["ann"], [NONE])
    with pytest.raises(TextenvError, match="every question was skipped"):
        consensus(labels, "majority")
    with pytest.raises(UsageError, match="Did you mean 'crowd-bt'"):
        consensus(labels, "crowd-pt")
