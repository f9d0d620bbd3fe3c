"""Estimators of KL(p‖q) from tokens sampled from p, and the exact sum over the vocabulary.

k1, k2 and k3 are those of Schulman, "Approximating KL divergence" (2020): k1 and k3 are unbiased,
k2 is not. What their gradients are is another matter: as a reward only k1 has the right one; as a
loss k2 does, and `full_kl`, while k1's is zero on average and k3's is that of KL(q‖p). That is so for
one distribution. Of an episode, k2 of the whole response has the right gradient; k2 or `full_kl` token
by token lacks what a token does to the KL of the states after it. On Exact-v0 that is little: the
cosine to the gradient is 0.9985, and 0.982 of its length is there (`tests/textenv/test_kl.py`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def k1(logp: Float[Tensor, "*shape"], logq: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log p − log q at tokens drawn from p, in nats; unbiased, and of either sign."""
    _check_equal_shapes(logp, logq)
    return logp - logq


def k2(logp: Float[Tensor, "*shape"], logq: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(log p − log q)² / 2 at tokens drawn from p; biased, and never negative."""
    _check_equal_shapes(logp, logq)
    return (logp - logq).square() / 2


def k3(logp: Float[Tensor, "*shape"], logq: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """q/p − 1 − log(q/p) at tokens drawn from p, in nats; unbiased, and never negative."""
    _check_equal_shapes(logp, logq)
    return torch.expm1(logq - logp) - (logq - logp)


def full_kl(logits_p: Float[Tensor, "*shape V"], logits_q: Float[Tensor, "*shape V"]) -> Float[Tensor, "*shape"]:
    """Σ_v p(v) (log p(v) − log q(v)) over the whole vocabulary at each position, in nats.

    Args:
        logits_p: logits or log-probabilities of the distribution that the expectation is under.
        logits_q: those of the other one, of the same shape.
    """
    _check_equal_shapes(logits_p, logits_q)
    logp = torch.log_softmax(logits_p.float(), dim=-1)
    logq = torch.log_softmax(logits_q.float(), dim=-1)
    # A token that p excludes adds nothing, even where 0 · ∞ would be NaN.
    difference = torch.where(logp == -torch.inf, torch.zeros_like(logp), logp - logq)
    return (logp.exp() * difference).sum(dim=-1)


def _check_equal_shapes(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(f"the two distributions have shapes {tuple(first.shape)} and {tuple(second.shape)}")
