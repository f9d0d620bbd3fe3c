"""The maths that algorithms share: pure functions of (B, T) tensors, masked and shape-checked.

Rows are responses and columns their tokens. A mask covers the columns from 0 up to the end of
each response; what stands in the other columns is never looked at and comes back as 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Tokens = Float[Tensor, "B T"]
Mask = Bool[Tensor, "B T"]
Scalar = Float[Tensor, ""]


class Advantages(NamedTuple):
    """How much better each token was than expected, and what the values should have been."""

    advantages: Tokens
    returns: Tokens


class PolicyLoss(NamedTuple):
    """A loss to minimise, and how far the policy has moved from the one that sampled."""

    loss: Scalar
    clip_fraction: Scalar
    """Share of tokens whose ratio lies outside the clip range."""
    ratio_deviation: Scalar
    """Largest |ratio - 1| of any token."""


class ValueLoss(NamedTuple):
    """A loss to minimise, and the share of tokens where the clipped value made it."""

    loss: Scalar
    clip_fraction: Scalar


def _check_shapes(mask: Tensor, **tensors: Tensor) -> None:
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (B, T), got {mask.dtype} {tuple(mask.shape)}")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, the mask {tuple(mask.shape)}")


def masked_mean(values: Tokens, mask: Mask) -> Scalar:
    """Averages over the tokens that the mask covers; 0 where it covers none."""
    _check_shapes(mask, values=values)
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def masked_variance(values: Tokens, mask: Mask) -> Scalar:
    """The variance (divided by n) over the tokens that the mask covers."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def masked_whiten(values: Tokens, mask: Mask, *, shift_mean: bool = True) -> Tokens:
    """Scales the covered tokens to variance 1, and to mean 0 unless the mean is to be kept."""
    mean = masked_mean(values, mask)
    white = (values - mean) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return (white if shift_mean else white + mean).masked_fill(~mask, 0.0)


def gae(rewards: Tokens, values: Tokens, mask: Mask, gamma: float, gae_lambda: float) -> Advantages:
    """Estimates advantages of finished episodes (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    Every episode has ended at its last covered token, so nothing is bootstrapped there.

    Args:
        rewards: r_t, paid for token t.
        values: V(s_t), of the state before token t.
        mask: the tokens of each response.
        gamma: discount, 1 in RLHF.
        gae_lambda: 0 for one-step differences, 1 for the whole return.

    Returns:
        Advantages, and returns = advantages + values.
    """
    _check_shapes(mask, rewards=rewards, values=values)
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        # Columns beyond the end hold zeros, so the last token sees a next value and advantage of 0.
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * gae_lambda * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return Advantages(advantages, advantages + values)


def policy_gradient_loss(logprobs: Tokens, advantages: Tokens, mask: Mask) -> Scalar:
    """The loss whose gradient is the policy gradient, -mean(A log pi) (Mnih et al. 2016, arXiv:1602.01783)."""
    _check_shapes(mask, logprobs=logprobs, advantages=advantages)
    return masked_mean(-advantages.detach() * logprobs, mask)


def clipped_surrogate(
    logprobs: Tokens, old_logprobs: Tokens, advantages: Tokens, mask: Mask, clip_range: float
) -> PolicyLoss:
    """PPO's policy loss, -mean(min(rho A, clip(rho, 1 - eps, 1 + eps) A)) (Schulman et al. 2017, arXiv:1707.06347).

    Args:
        logprobs: of the policy being trained; the only argument that gradients flow to.
        old_logprobs: of the policy that sampled.
        advantages: of each token.
        mask: the tokens of each response.
        clip_range: eps.
    """
    _check_shapes(mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    ratio = (logprobs - old_logprobs.detach()).masked_fill(~mask, 0.0).exp()
    advantages = advantages.detach()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    loss = masked_mean(-torch.minimum(ratio * advantages, clipped * advantages), mask)
    deviation = (ratio.detach() - 1).abs()
    return PolicyLoss(loss, masked_mean((deviation > clip_range).float(), mask), deviation.max())


def value_loss(values: Tokens, old_values: Tokens, returns: Tokens, mask: Mask, clip_range: float | None) -> ValueLoss:
    """Half the mean squared error of the values, the worse of clipped and unclipped.

    The clip keeps values within `clip_range` of the old ones, in reward units (OpenAI baselines'
    ppo2; Huang et al. 2022, "The 37 implementation details of PPO", 9); None does not clip.
    """
    _check_shapes(mask, values=values, old_values=old_values, returns=returns)
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
    _check_shapes(mask, values=values, returns=returns)
    variance = masked_variance(returns, mask)
    if float(variance) == 0.0:
        return torch.zeros(())
    return 1 - masked_variance(returns - values, mask) / variance
