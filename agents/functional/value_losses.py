"""What a critic is trained by, and how good it is."""

from __future__ import annotations

from typing import NamedTuple

import torch

from agents.functional.masked import Mask, Scalar, Tokens, check_shapes, masked_mean, masked_variance


class ValueLoss(NamedTuple):
    """A loss to minimise, and the share of tokens where the clipped value made it."""

    loss: Scalar
    clip_fraction: Scalar


def value_loss(values: Tokens, old_values: Tokens, returns: Tokens, mask: Mask, clip_range: float | None) -> ValueLoss:
    """Half the mean squared error of the values, the worse of clipped and unclipped.

    The clip keeps values within `clip_range` of the old ones, in reward units (OpenAI baselines'
    ppo2; Huang et al. 2022, "The 37 implementation details of PPO", 9); None does not clip.
    """
    check_shapes(mask, values=values, old_values=old_values, returns=returns)
    error = (values - returns.detach()) ** 2
    if clip_range is None:
        return ValueLoss(0.5 * masked_mean(error, mask), torch.zeros(()))
    old_values = old_values.detach()
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped_error = (clipped - returns.detach()) ** 2
    loss = 0.5 * masked_mean(torch.maximum(error, clipped_error), mask)
    return ValueLoss(loss, masked_mean((clipped_error > error).float(), mask))


def explained_variance(values: Tokens, returns: Tokens, mask: Mask) -> Scalar:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant; 0 for constant returns."""
    check_shapes(mask, values=values, returns=returns)
    variance = masked_variance(returns, mask)
    if float(variance) == 0.0:
        return torch.zeros(())
    return 1 - masked_variance(returns - values, mask) / variance
