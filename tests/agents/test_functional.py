from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.functional import (
    clipped_surrogate,
    explained_variance,
    gae,
    masked_mean,
    masked_variance,
    masked_whiten,
    policy_gradient_loss,
    value_loss,
)

ONE_OFF = torch.tensor([[True, True, False]])


def lengths_and_values(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    width = draw(st.integers(1, 6))
    lengths = torch.tensor(draw(st.lists(st.integers(1, width), min_size=1, max_size=5)))
    mask = torch.arange(width) < lengths[:, None]
    numbers = st.floats(-10, 10, width=32)
    count = mask.numel()
    values = torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count))).reshape(mask.shape)
    return mask, values


masked_values = st.composite(lengths_and_values)()


def test_masked_mean_and_variance_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0, 1000.0]])
    assert masked_mean(values, ONE_OFF).item() == 2.0
    assert masked_variance(values, ONE_OFF).item() == 1.0
    assert masked_mean(values, torch.zeros(1, 3, dtype=torch.bool)).item() == 0.0


def test_masked_columns_may_hold_anything() -> None:
    values = torch.tensor([[1.0, 3.0, math.nan]])
    assert masked_mean(values, ONE_OFF).item() == 2.0
    assert masked_whiten(values, ONE_OFF)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0])


def test_whitening_by_hand() -> None:
    values = torch.tensor([[1.0, 5.0, 7.0]])
    # Mean 3, deviation 2.
    assert masked_whiten(values, ONE_OFF)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0])
    assert masked_whiten(values, ONE_OFF, shift_mean=False)[0].tolist() == pytest.approx([2.0, 4.0, 0.0])


@settings(deadline=None)
@given(masked_values)
def test_whitened_values_have_mean_0_and_variance_at_most_1(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, values = case
    white = masked_whiten(values, mask)
    # Where all values are equal, the rounding of their mean is divided by the root of 1e-8.
    assert abs(masked_mean(white, mask).item()) < 5e-2
    assert masked_variance(white, mask).item() < 1 + 1e-3
    kept = masked_whiten(values, mask, shift_mean=False)
    assert masked_mean(kept, mask).item() == pytest.approx(masked_mean(values, mask).item(), abs=5e-2)


def test_gae_by_hand() -> None:
    # Deltas: 1 + 0.5*2 - 0.5 = 1.5, and 3 - 2 = 1 at the end, where nothing follows.
    # Advantages: 1.5 + 0.5*0.5*1 = 1.75, and 1.
    rewards, values = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[0.5, 2.0, 99.0]])
    advantages, returns = gae(rewards, values, ONE_OFF, gamma=0.5, gae_lambda=0.5)
    assert advantages.tolist() == [[1.75, 1.0, 0.0]]
    assert returns.tolist() == [[2.25, 3.0, 0.0]]


@settings(deadline=None)
@given(masked_values)
def test_gae_with_lambda_1_is_the_return_less_the_value(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, rewards = case
    values = rewards.flip(1)
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    for row, (keep, reward) in enumerate(zip(mask, rewards, strict=True)):
        paid = reward[keep].tolist()
        to_come = [sum(paid[t:]) for t in range(len(paid))]
        assert returns[row][keep].tolist() == pytest.approx(to_come, abs=1e-3)
        assert (advantages[row][keep] + values[row][keep]).tolist() == pytest.approx(to_come, abs=1e-3)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()


@settings(deadline=None)
@given(masked_values)
def test_gae_with_lambda_0_looks_one_step_ahead(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, rewards = case
    values = rewards.flip(1)
    advantages, _ = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.0)
    kept = values.masked_fill(~mask, 0.0)
    following = torch.cat([kept[:, 1:], torch.zeros(len(kept), 1)], dim=1)
    expected = (rewards + 0.9 * following - values).masked_fill(~mask, 0.0)
    torch.testing.assert_close(advantages, expected)


def test_policy_gradient_loss_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -5.0]], requires_grad=True)
    loss = policy_gradient_loss(logprobs, torch.tensor([[3.0, -1.0, 7.0]]), ONE_OFF)
    loss.backward()
    # -(3 * -1 + -1 * -2) / 2
    assert loss.item() == 0.5
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.5, 0.5, 0.0]]


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


@pytest.mark.parametrize(
    ("value", "clip_range", "loss", "clipped"),
    [
        (0.1, 0.2, 0.405, 0.0),  # within the range: (0.1 - 1)^2 / 2
        (0.6, 0.2, 0.32, 1.0),  # better than may be claimed: (0.2 - 1)^2 / 2
        (-0.6, 0.2, 1.28, 0.0),  # worse than the clipped one: (-0.6 - 1)^2 / 2
        (0.6, None, 0.08, 0.0),
    ],
)
def test_value_loss_by_hand(value: float, clip_range: float | None, loss: float, clipped: float) -> None:
    result = value_loss(
        torch.tensor([[value, 50.0]]),
        torch.zeros(1, 2),
        torch.tensor([[1.0, -50.0]]),
        torch.tensor([[True, False]]),
        clip_range,
    )
    assert result.loss.item() == pytest.approx(loss)
    assert result.clip_fraction.item() == clipped


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([[1.0, 3.0, 9.0]])
    assert explained_variance(returns, returns, ONE_OFF).item() == 1.0
    assert explained_variance(torch.full((1, 3), 7.0), returns, ONE_OFF).item() == 0.0
    # Residuals 0.5 and -0.5 have variance 0.25, the returns 1.
    assert explained_variance(torch.tensor([[0.5, 3.5, 0.0]]), returns, ONE_OFF).item() == 0.75
    assert explained_variance(torch.tensor([[0.5, 3.5, 0.0]]), torch.ones(1, 3), ONE_OFF).item() == 0.0


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"values has shape \(1, 2\), the mask \(1, 3\)"):
        gae(torch.zeros(1, 3), torch.zeros(1, 2), ONE_OFF, 1.0, 0.95)
    with pytest.raises(ValueError, match="mask must be boolean"):
        masked_mean(torch.zeros(1, 3), torch.ones(1, 3))
