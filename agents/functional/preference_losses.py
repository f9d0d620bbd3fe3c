"""Losses that learn a policy from comparisons, without a reward model in between.

Most are of d = β·(log π/π_ref of the first response less that of the second), the difference of the policy's
implicit rewards, and of l, the probability that the first wins. A sure label is l = 1 or l = 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.functional.masked import Scalar
from textenv.bradley_terry import bradley_terry_loss, smoothed_label, unflipped_label

Pairs: TypeAlias = Float[Tensor, " n"]

PairLoss: TypeAlias = Literal["sigmoid", "ipo", "hinge", "robust"]
"""Names of the losses."""


class PreferenceLoss(NamedTuple):
    """A loss to minimise, and how the policy's implicit rewards order the pairs."""

    loss: Scalar
    accuracy: Scalar
    """Share of the pairs that they order as the label does; a tie of either counts one half."""
    margin: Scalar
    """Mean implicit reward of what was preferred less that of the other, in reward units; 0 for a tie."""
    chosen_reward: Scalar
    """Mean implicit reward of what was preferred, β·log π/π_ref; for a tie, of both responses."""
    rejected_reward: Scalar
    """Of what was not; a margin can grow while both fall."""
    chosen_logprob: Scalar
    """Mean log π of what was preferred, in nats a response; for a tie, of both responses."""


def preference_loss(
    logprobs: Float[Tensor, "n 2"],
    reference_logprobs: Float[Tensor, "n 2"],
    label: Pairs,
    beta: float,
    kind: PairLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    """One of the losses below, of a policy's log-probabilities of n pairs.

    Args:
        logprobs: log π of the first and the second response, summed over its tokens.
        reference_logprobs: the same of π_ref.
        label: the probability that the first wins, in [0, 1].
        beta: β.
        kind: which loss.
        label_smoothing: ε, the share of labels that are held to be wrong; for the losses sigmoid and robust.

    Raises:
        ValueError: the shapes do not go together, or there is no such loss.
    """
    if logprobs.shape != (len(label), 2) or reference_logprobs.shape != logprobs.shape:
        raise ValueError(
            f"logprobs {tuple(logprobs.shape)} and reference_logprobs {tuple(reference_logprobs.shape)} must both be "
            f"(n, 2) for {len(label)} labels"
        )
    rewards = beta * (logprobs - reference_logprobs.detach())
    difference = rewards[:, 0] - rewards[:, 1]
    if kind == "sigmoid":
        loss = sigmoid_loss(difference, label, label_smoothing)
    elif kind == "robust":
        loss = robust_loss(difference, label, label_smoothing)
    elif kind == "ipo":
        loss = ipo_loss(difference, label, beta)
    elif kind == "hinge":
        loss = hinge_loss(difference, label)
    else:
        raise ValueError(f"there is no loss {kind!r}; there are {', '.join(get_args(PairLoss))}")
    winner = torch.sign(label - 0.5)
    gain = winner * difference.detach()
    # How much of each response was preferred: all or nothing, and one half of either of a tie.
    first = (1 + winner) / 2
    chosen = torch.stack([first, 1 - first], dim=1)
    return PreferenceLoss(
        loss,
        accuracy=(1 + gain.sign()).mean() / 2,
        margin=gain.mean(),
        chosen_reward=(chosen * rewards.detach()).sum(dim=1).mean(),
        rejected_reward=((1 - chosen) * rewards.detach()).sum(dim=1).mean(),
        chosen_logprob=(chosen * logprobs.detach()).sum(dim=1).mean(),
    )


def sigmoid_loss(difference: Pairs, label: Pairs, label_smoothing: float = 0.0) -> Scalar:
    """−mean(l·log σ(d) + (1 − l)·log σ(−d)) (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

    Its least value is reached where σ(d) = l. With labels σ(r₁ − r₂), and every response compared, that is
    where π ∝ π_ref·exp(r/β), the optimum of J. With smoothing ε (Mitchell 2023, "A note on DPO with noisy
    preferences", there cDPO) l is drawn to one half, (1 − ε)·l + ε·(1 − l), so that even a sure label is not
    followed to d = ±∞.

    Args:
        difference: d.
        label: l.
        label_smoothing: ε in [0, 1/2).
    """
    return bradley_terry_loss(difference, torch.zeros_like(difference), smoothed_label(label, label_smoothing))


def robust_loss(difference: Pairs, label: Pairs, label_smoothing: float) -> Scalar:
    """The loss above with (l − ε)/(1 − 2ε) for l (Chowdhury et al. 2024, arXiv:2403.00409, there rDPO).

    Where labels are turned round with probability ε, its expectation is the loss with those that are not, so
    that its least value is where that of the true labels is.

    Args:
        difference: d.
        label: l.
        label_smoothing: ε in [0, 1/2).
    """
    return bradley_terry_loss(difference, torch.zeros_like(difference), unflipped_label(label, label_smoothing))


def ipo_loss(difference: Pairs, label: Pairs, beta: float) -> Scalar:
    """mean(l·(d/β − 1/2β)² + (1 − l)·(d/β + 1/2β)²) (Azar et al. 2023, arXiv:2310.12036, with τ = β).

    Its least value is reached where d = l − 1/2, so that a sure label is not followed to d = ±∞. With every
    response compared that is where π ∝ π_ref·exp(p/β), p the mean probability to win.

    Args:
        difference: d.
        label: l.
        beta: β.
    """
    aim = 1 / (2 * beta)
    return (label * (difference / beta - aim) ** 2 + (1 - label) * (difference / beta + aim) ** 2).mean()


def hinge_loss(difference: Pairs, label: Pairs) -> Scalar:
    """mean(l·max(0, 1 − d) + (1 − l)·max(0, 1 + d)) (Liu et al. 2023, RSO, arXiv:2309.06657, there hinge-norm).

    SLiC's hinge loss (Zhao et al. 2023, arXiv:2305.10425) with the policy's log-probabilities held against π_ref's.
    Its least value is reached at d = 1 where the first wins more often than not, at d = −1 where the second
    does: how sure a label is does not matter.

    Args:
        difference: d.
        label: l.
    """
    return (label * (1 - difference).relu() + (1 - label) * (1 + difference).relu()).mean()


def imitation_loss(logprobs: Float[Tensor, "n 2"], lengths: Int[Tensor, "n 2"], label: Pairs) -> Scalar:
    """−mean(l·p₁ + (1 − l)·p₂): the cross-entropy of what was preferred, in nats a token (the last term of CPO's loss).

    Args:
        logprobs: log π of the first and the second response, summed over its tokens.
        lengths: tokens of each; p is the log-probability a token.
        label: l.

    Raises:
        ValueError: the shapes do not go together.
    """
    if logprobs.shape != (len(label), 2) or lengths.shape != logprobs.shape:
        raise ValueError(
            f"logprobs {tuple(logprobs.shape)} and lengths {tuple(lengths.shape)} must both be (n, 2) for "
            f"{len(label)} labels"
        )
    first, second = (logprobs / lengths).unbind(dim=1)
    return -(label * first + (1 - label) * second).mean()
