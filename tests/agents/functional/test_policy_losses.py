from __future__ import annotations

import math

import pytest
import torch

from agents.functional.masked import mean_of_responses
from agents.functional.policy_losses import (
    clipped_response_surrogate,
    clipped_surrogate,
    policy_gradient_loss,
    response_policy_gradient_loss,
)

ONE_OFF = torch.tensor([[True, True, False]])


def test_policy_gradient_loss_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -5.0]], requires_grad=True)
    loss = policy_gradient_loss(logprobs, torch.tensor([[3.0, -1.0, 7.0]]), ONE_OFF)
    loss.backward()
    # -(3 * -1 + -1 * -2) / 2
    assert loss.item() == 0.5
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.5, 0.5, 0.0]]


def test_response_policy_gradient_loss_by_hand() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    logprobs = torch.tensor([[-1.0, -2.0, math.nan], [-0.5, math.nan, math.nan]], requires_grad=True)
    loss = response_policy_gradient_loss(logprobs, torch.tensor([3.0, -1.0]), mask)
    loss.backward()
    # -(3 * -3 + -1 * -0.5) / 2: a long response weighs as much as a short one.
    assert loss.item() == 4.25
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.5, -1.5, 0.0], [0.5, 0.0, 0.0]]
    with pytest.raises(ValueError, match="expected one for each of 2 rows"):
        response_policy_gradient_loss(logprobs, torch.zeros(2, 3), mask)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "flows"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),  # gained enough: clipped at 1.2
        (0.5, 2.0, -1.0, True),  # lost, though good: pushed back
        (0.5, -2.0, 1.6, False),  # lost enough: clipped at 0.8
        (1.5, -2.0, 3.0, True),  # gained, though bad: pushed back
    ],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, flows: bool) -> None:
    logprobs = torch.tensor([[math.log(ratio) - 1.0]], requires_grad=True)
    result = clipped_surrogate(
        logprobs, torch.tensor([[-1.0]]), torch.tensor([[advantage]]), torch.tensor([[True]]), clip_range=0.2
    )
    result.loss.backward()
    assert result.loss.item() == pytest.approx(loss, abs=1e-6)
    assert logprobs.grad is not None
    assert bool(logprobs.grad.any()) is flows
    assert result.clip_fraction.item() == float(abs(ratio - 1) > 0.2)
    assert result.ratio_deviation.item() == pytest.approx(abs(ratio - 1), abs=1e-6)


def test_clipped_surrogate_averages_over_the_tokens_only() -> None:
    logprobs = torch.tensor([[0.0, math.log(2.0), math.nan]])
    result = clipped_surrogate(logprobs, torch.zeros(1, 3), torch.tensor([[1.0, 1.0, 100.0]]), ONE_OFF, clip_range=0.2)
    assert result.loss.item() == pytest.approx(-1.1)
    assert result.clip_fraction.item() == 0.5
    assert result.ratio_deviation.item() == pytest.approx(1.0)


def test_clipped_surrogate_averages_over_each_response_first_where_asked() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    logprobs = torch.tensor([[0.0, math.log(1.1)], [0.0, math.nan]])
    advantages = torch.tensor([[1.0, 1.0], [-2.0, 9.0]])
    result = clipped_surrogate(logprobs, torch.zeros(2, 2), advantages, mask, 0.2, mean_of_responses)
    # Means -1.05 and 2.
    assert result.loss.item() == pytest.approx(0.475)


@pytest.mark.parametrize(
    ("steps", "advantage", "loss", "flows"),
    [
        ((1.5, 0.7), 2.0, -2.1, True),  # 1.05 together, though each token is far off
        ((1.1, 1.2), 2.0, -2.4, False),  # 1.32 together: clipped at 1.2
        ((0.8, 0.8), -2.0, 1.6, False),  # 0.64 together: clipped at 0.8
        ((0.8, 0.8), 2.0, -1.28, True),  # lost, though good: pushed back
    ],
)
def test_clipped_response_surrogate_by_hand(
    steps: tuple[float, float], advantage: float, loss: float, flows: bool
) -> None:
    logprobs = torch.tensor([[math.log(step) - 1.0 for step in steps] + [math.nan]], requires_grad=True)
    old = torch.tensor([[-1.0, -1.0, 5.0]])
    result = clipped_response_surrogate(logprobs, old, torch.tensor([advantage]), ONE_OFF, clip_range=0.2)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(loss, abs=1e-5)
    assert logprobs.grad is not None
    ratio = math.prod(steps)
    slope = -advantage * ratio if flows else 0.0
    assert logprobs.grad[0].tolist() == pytest.approx([slope, slope, 0.0], abs=1e-5)
    assert result.clip_fraction.item() == float(abs(ratio - 1) > 0.2)
    assert result.ratio_deviation.item() == pytest.approx(abs(ratio - 1), abs=1e-5)


def test_at_the_start_it_sums_over_tokens_and_averages_over_responses() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    logprobs = torch.full((2, 2), -1.0, requires_grad=True)
    result = clipped_response_surrogate(logprobs, logprobs.detach(), torch.tensor([3.0, -1.0]), mask, 0.2)
    result.loss.backward()
    assert result.loss.item() == -1.0
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.5, -1.5], [0.5, 0.0]]


def test_an_advantage_for_each_response_is_expected() -> None:
    with pytest.raises(ValueError, match=r"advantages have shape \(1, 3\), expected one for each of 1 rows"):
        clipped_response_surrogate(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3), ONE_OFF, 0.2)
