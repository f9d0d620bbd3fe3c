import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward_models.balancing import DEMONSTRATION, against_demonstrations, balanced, counterbalanced
from textenv.errors import UsageError
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 99))
def test_every_item_is_shown_as_often_in_either_order(items, seed):
    item = np.array(items)
    swapped = counterbalanced(item, np.random.default_rng(seed))
    for each in set(items):
        assert abs(2 * swapped[item == each].sum() - (item == each).sum()) <= 1


def test_a_leaning_to_the_first_cancels_in_the_mean_of_an_item():
    item = np.repeat(np.arange(300), 4)
    swapped = counterbalanced(item, np.random.default_rng(0))
    shown_first = np.ones(len(item))  # Everybody always prefers what is shown first.
    for_items_first = np.where(swapped, 1 - shown_first, shown_first)
    assert (np.bincount(item, for_items_first) / 4 == 0.5).all()
    by_coin = np.random.default_rng(0).random(len(item)) < 0.5
    assert (np.bincount(item, 1.0 * ~by_coin) / 4 != 0.5).mean() > 0.5
    odd = counterbalanced(np.arange(2000), np.random.default_rng(1))
    assert odd.mean() == pytest.approx(0.5, abs=0.04)


def responses(prompts: list[list[int]], texts: list[list[int]]) -> Responses:
    return Responses.from_lists(Prompts.from_lists(prompts, 0), texts, 0)


def test_demonstrations_win_in_either_position():
    prompts = [[10 + number] for number in range(40)]
    demonstrations = responses(prompts, [[1, 2]] * 40)
    samples = responses(prompts, [text for _ in prompts for text in ([3], [1, 2])])
    preferences = against_demonstrations(demonstrations, samples, np.random.default_rng(0))
    assert len(preferences) == 40  # The second samples are the demonstrations themselves.
    assert preferences.prompts.to_lists() == prompts
    assert set(preferences.rater) == {DEMONSTRATION}
    for first, second, label in zip(
        preferences.first.to_lists(), preferences.second.to_lists(), preferences.label.tolist(), strict=True
    ):
        assert (first if label else second) == [1, 2]
        assert (second if label else first) == [3]
    assert 10 <= preferences.label.sum() <= 30
    with pytest.raises(UsageError, match="nothing to compare"):
        against_demonstrations(demonstrations, demonstrations, np.random.default_rng(0))
    with pytest.raises(UsageError, match="one to each prompt"):
        against_demonstrations(samples, samples, np.random.default_rng(0))


def kind(name: str, count: int, width: int) -> Preferences:
    prompts = Prompts.from_lists([[10] * width] * count, 0)
    return Preferences(
        Responses.from_lists(prompts, [[1] * width] * count, 0),
        Responses.from_lists(prompts, [[2]] * count, 0),
        label=torch.ones(count),
        rater=[f"{name}-{number}" for number in range(count)],
        session_time=torch.zeros(count, dtype=torch.float64),
        utility=torch.zeros(count, 2),
        probability=torch.ones(count),
    )


def test_kinds_are_mixed_in_their_shares_and_no_comparison_twice():
    parts = [kind("rater", 50, 1), kind(DEMONSTRATION, 100, 3), kind("self", 9, 2)]
    mixed = balanced(parts, [2, 1, 0], 60, np.random.default_rng(0))
    kinds = [name.partition("-")[0] for name in mixed.rater]
    assert (kinds.count("rater"), kinds.count(DEMONSTRATION), len(kinds)) == (40, 20, 60)
    assert len(set(mixed.rater)) == 60
    assert kinds != sorted(kinds)
    for prompt, first, name in zip(mixed.prompts.to_lists(), mixed.first.to_lists(), kinds, strict=True):
        assert len(prompt) == len(first) == {"rater": 1, DEMONSTRATION: 3}[name]


@pytest.mark.parametrize(
    ("shares", "total", "match"),
    [
        ([1], 5, "as many shares"),
        ([0, 0], 5, "one above 0"),
        ([1, -1], 5, "from 0 up"),
        ([1, 1], 30, "kind 1 .* has 9"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares, total, match):
    with pytest.raises(UsageError, match=match):
        balanced([kind("rater", 50, 1), kind("self", 9, 1)], shares, total, np.random.default_rng(0))
