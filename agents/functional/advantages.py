"""How much better a token or a response was than what could be expected."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.functional.masked import Mask, Tokens, check_shapes

SMALLEST_DEVIATION = 1e-4
"""Added to a group's standard deviation, so that a group of equal rewards is not divided by 0."""


class Advantages(NamedTuple):
    """How much better each token was than expected, and what the values should have been."""

    advantages: Tokens
    returns: Tokens


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
    check_shapes(mask, rewards=rewards, values=values)
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


def leave_one_out(rewards: Float[Tensor, " B"], group_size: int) -> Float[Tensor, " B"]:
    """A_i = R_i less the mean of the other k − 1 responses to the prompt (Kool et al. 2019; arXiv:2402.14740, eq. 8).

    The baseline does not depend on response i, so that no bias comes of it.

    Args:
        rewards: R of whole responses, those to one prompt in a row.
        group_size: k ≥ 2.

    Raises:
        ValueError: the rewards cannot be groups of k.
    """
    groups = _groups(rewards, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).flatten()


def leave_one_out_with_kl(score: Float[Tensor, " B"], kl_cost: Tokens, mask: Mask, group_size: int) -> Tokens:
    """A_it = G_it less the mean of the same over the other k − 1 responses, G_it = R_i − the cost of tokens after t.

    For a loss that holds the cost of each token's own distribution: what a token brings about beside that.

    Args:
        score: R of whole responses, those to one prompt in a row.
        kl_cost: β times the KL in the state before each token.
        mask: the tokens of each response.
        group_size: k ≥ 2.

    Raises:
        ValueError: the rewards cannot be groups of k.
    """
    check_shapes(mask, kl_cost=kl_cost)
    costs = kl_cost.masked_fill(~mask, 0.0)
    returns = score[:, None] - (costs.sum(dim=1, keepdim=True) - costs.cumsum(dim=1))
    # Column after column, since the responses of a group stand in a row there.
    advantages = leave_one_out(returns.T.flatten(), group_size).view(returns.T.shape).T
    return advantages.masked_fill(~mask, 0.0)


def group_relative(rewards: Float[Tensor, " B"], group_size: int, *, scale: bool) -> Float[Tensor, " B"]:
    """A_i = R_i less the mean of the k responses to the prompt (Shao et al. 2024, arXiv:2402.03300, section 4.1.2).

    The mean holds R_i itself, so that A_i is (k − 1)/k of what `leave_one_out` gives.

    Args:
        rewards: R of whole responses, those to one prompt in a row.
        group_size: k ≥ 2.
        scale: divide by the group's standard deviation (with k − 1), as published. Then a prompt whose rewards
            differ little weighs as much as one whose rewards differ much, which is not the gradient of the
            mean reward (Liu et al. 2025, arXiv:2503.20783, section 3.1).

    Raises:
        ValueError: the rewards cannot be groups of k.
    """
    groups = _groups(rewards, group_size)
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if scale:
        # In double, where the squares of large rewards do not overflow and silence the group.
        deviation = groups.double().std(dim=1, keepdim=True).to(groups.dtype)
        advantages = advantages / (deviation + SMALLEST_DEVIATION)
    return advantages.flatten()


def _groups(rewards: Float[Tensor, " B"], group_size: int) -> Float[Tensor, "N k"]:
    if group_size < 2 or rewards.ndim != 1 or len(rewards) % group_size:
        raise ValueError(
            f"rewards of shape {tuple(rewards.shape)} are no groups of {group_size}, which must be 2 or more"
        )
    return rewards.view(-1, group_size)
