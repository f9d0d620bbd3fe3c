"""Losses that learn a policy from comparisons, without a reward model in between."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.functional.masked import Scalar
from textenv.bradley_terry import bradley_terry_loss


class PreferenceLoss(NamedTuple):
    """A loss to minimise, and how the policy's implicit rewards order the pairs."""

    loss: Scalar
    accuracy: Scalar
    """Share of the pairs that they order as the label does; a tie of either counts one half."""
    margin: Scalar
    """Mean implicit reward of what was preferred less that of the other, in reward units; 0 for a tie."""


def dpo_loss(
    logprobs: Float[Tensor, "n 2"], reference_logprobs: Float[Tensor, "n 2"], label: Float[Tensor, " n"], beta: float
) -> PreferenceLoss:
    """−mean(l·log σ(d) + (1 − l)·log σ(−d)), d the difference of the rewards β·log(π/π_ref) (arXiv:2305.18290, eq. 7).

    Its least value is reached where σ(d) = l. With labels σ(r₁ − r₂), and every response compared, that is
    where π ∝ π_ref·exp(r/β), the optimum of J.

    Args:
        logprobs: log π of the first and the second response, summed over its tokens.
        reference_logprobs: the same of π_ref.
        label: the probability that the first wins, in [0, 1].
        beta: β.

    Raises:
        ValueError: the shapes do not go together.
    """
    if logprobs.shape != (len(label), 2) or reference_logprobs.shape != logprobs.shape:
        raise ValueError(
            f"logprobs {tuple(logprobs.shape)} and reference_logprobs {tuple(reference_logprobs.shape)} must both be "
            f"(n, 2) for {len(label)} labels"
        )
    rewards = beta * (logprobs - reference_logprobs.detach())
    first, second = rewards.unbind(dim=1)
    loss = bradley_terry_loss(first, second, label)
    preferred = torch.sign(label - 0.5)
    gain = preferred * (first - second).detach()
    return PreferenceLoss(loss, (1 + gain.sign()).mean() / 2, gain.mean())
