"""Losses whose gradient raises the probability of what was better than expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.functional.masked import Mask, Scalar, Tokens, check_shapes, masked_mean
from textenv.kl import k3


class PolicyLoss(NamedTuple):
    """A loss to minimise, and how far the policy has moved from the one that sampled."""

    loss: Scalar
    clip_fraction: Scalar
    """Share of the ratios (of tokens or of responses) that lie outside the clip range."""
    ratio_deviation: Scalar
    """Largest |ratio - 1| of any."""
    approx_kl: Scalar
    """KL(π_old‖π) in nats a token, estimated by k3 on the tokens that π_old sampled."""


def policy_gradient_loss(logprobs: Tokens, advantages: Tokens, mask: Mask) -> Scalar:
    """The loss whose gradient is the policy gradient, -mean(A log pi) (Mnih et al. 2016, arXiv:1602.01783)."""
    check_shapes(mask, logprobs=logprobs, advantages=advantages)
    return masked_mean(-advantages.detach() * logprobs, mask)


def response_policy_gradient_loss(logprobs: Tokens, advantages: Float[Tensor, " B"], mask: Mask) -> Scalar:
    """The same with a whole response as one action, -mean_i(A_i Σ_t log pi(y_t)) (Williams 1992, section 3).

    Args:
        logprobs: of each token; the only argument that gradients flow to.
        advantages: of each response.
        mask: the tokens of each response.
    """
    check_shapes(mask, logprobs=logprobs)
    _check_one_a_row(advantages, mask)
    return -(advantages.detach() * logprobs.masked_fill(~mask, 0.0).sum(dim=1)).mean()


def clipped_surrogate(
    logprobs: Tokens,
    old_logprobs: Tokens,
    advantages: Tokens,
    mask: Mask,
    clip_range: float,
    mean: Callable[[Tokens, Mask], Scalar] = masked_mean,
) -> PolicyLoss:
    """PPO's policy loss, -mean(min(rho A, clip(rho, 1 - eps, 1 + eps) A)) (Schulman et al. 2017, arXiv:1707.06347).

    Args:
        logprobs: of the policy being trained; the only argument that gradients flow to.
        old_logprobs: of the policy that sampled.
        advantages: of each token.
        mask: the tokens of each response.
        clip_range: eps.
        mean: how the tokens are averaged: `masked_mean`, or `mean_of_responses` as GRPO does.
    """
    check_shapes(mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    ratio = (logprobs - old_logprobs.detach()).masked_fill(~mask, 0.0).exp()
    loss = mean(_pessimistic(ratio, advantages.detach(), clip_range), mask)
    deviation = (ratio.detach() - 1).abs()
    clipped = masked_mean((deviation > clip_range).float(), mask)
    return PolicyLoss(loss, clipped, deviation.max(), _approx_kl(logprobs, old_logprobs, mask))


def clipped_response_surrogate(
    logprobs: Tokens, old_logprobs: Tokens, advantages: Float[Tensor, " B"], mask: Mask, clip_range: float
) -> PolicyLoss:
    """The same with a whole response as one action: rho is the ratio of its probabilities, the mean over responses.

    At rho = 1 its gradient is that of -mean_i(A_i Σ_t log pi(y_t)).

    Args:
        logprobs: of the policy being trained; the only argument that gradients flow to.
        old_logprobs: of the policy that sampled.
        advantages: of each response.
        mask: the tokens of each response.
        clip_range: eps.
    """
    check_shapes(mask, logprobs=logprobs, old_logprobs=old_logprobs)
    _check_one_a_row(advantages, mask)
    ratio = (logprobs - old_logprobs.detach()).masked_fill(~mask, 0.0).sum(dim=1).exp()
    loss = _pessimistic(ratio, advantages.detach(), clip_range).mean()
    deviation = (ratio.detach() - 1).abs()
    clipped = (deviation > clip_range).float().mean()
    return PolicyLoss(loss, clipped, deviation.max(), _approx_kl(logprobs, old_logprobs, mask))


@torch.no_grad()
def _approx_kl(logprobs: Tokens, old_logprobs: Tokens, mask: Mask) -> Scalar:
    return masked_mean(k3(old_logprobs, logprobs), mask)


def _check_one_a_row(advantages: Tensor, mask: Mask) -> None:
    if advantages.shape != mask.shape[:1]:
        raise ValueError(f"advantages have shape {tuple(advantages.shape)}, expected one for each of {len(mask)} rows")


def _pessimistic(ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantages, clipped * advantages)
