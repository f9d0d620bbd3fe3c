from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.functional.preference_losses import dpo_loss


def test_dpo_loss_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -4.0], [-2.0, -1.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, -3.0], [-2.0, -2.0]])
    # Log-ratios 1 and -1, and 0 and 1, so that d is 0.5 * 2 = 1 and 0.5 * -1 = -0.5.
    result = dpo_loss(logprobs, reference, torch.tensor([1.0, 0.25]), beta=0.5)
    first = -math.log(1 / (1 + math.exp(-1)))
    second = -0.25 * math.log(1 / (1 + math.exp(0.5))) - 0.75 * math.log(1 / (1 + math.exp(-0.5)))
    assert result.loss.item() == pytest.approx((first + second) / 2)
    assert result.accuracy.item() == 1.0
    assert result.margin.item() == 0.75
    result.loss.backward()
    # d's slope is σ(d) - l, and d's own in the log-probabilities ±β; half of it by the mean.
    slopes = [0.25 * (1 / (1 + math.exp(-1)) - 1), 0.25 * (1 / (1 + math.exp(0.5)) - 0.25)]
    assert logprobs.grad is not None
    assert logprobs.grad.flatten().tolist() == pytest.approx([slopes[0], -slopes[0], slopes[1], -slopes[1]])


def test_a_tie_counts_one_half() -> None:
    logprobs = torch.tensor([[0.0, -1.0], [-1.0, -1.0], [-1.0, 0.0]])
    result = dpo_loss(logprobs, torch.full((3, 2), -1.0), torch.tensor([0.5, 1.0, 1.0]), beta=1.0)
    # A label that is a tie, rewards that are one, and a wrong order.
    assert result.accuracy.item() == pytest.approx(1 / 3)
    assert result.margin.item() == pytest.approx(-1 / 3)


numbers = st.floats(-4, 0, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, st.floats(0, 1, width=32)), min_size=1, max_size=5))
def test_it_does_not_matter_which_is_shown_first(rows: list[tuple[float, ...]]) -> None:
    table = torch.tensor(rows)
    logprobs, reference, label = table[:, :2], table[:, 2:4], table[:, 4]
    shown = dpo_loss(logprobs, reference, label, 0.3)
    swapped = dpo_loss(logprobs.flip(1), reference.flip(1), 1 - label, 0.3)
    torch.testing.assert_close(shown, swapped)


@settings(deadline=None)
@given(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))
def test_it_is_least_where_the_rewards_say_the_label(difference: float, other: float) -> None:
    label = torch.tensor([difference]).sigmoid()

    def loss(d: float) -> float:
        return dpo_loss(torch.tensor([[d, 0.0]]), torch.zeros(1, 2), label, beta=1.0).loss.item()

    assert loss(difference) <= loss(other) + 1e-6


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"logprobs \(3, 2\) and reference_logprobs \(3, 2\) .* for 2 labels"):
        dpo_loss(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"reference_logprobs \(2,\)"):
        dpo_loss(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2), 1.0)
