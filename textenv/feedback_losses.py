"""The losses of feedback that is no comparison: rankings and thumbs."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def plackett_luce_loss(scores: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Mean of −Σ_i log(e^(r_i) / Σ_{j≥i} e^(r_j)), in nats a ranking; with two responses it is Bradley and Terry's.

    Plackett 1975, Luce 1959; as a loss for rewards: Rafailov et al. 2023 ("DPO", appendix A.3).

    Args:
        scores: of k ≥ 2 responses to each of n prompts, the best one first.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, expected (n, k) with k of 2 or more")
    rest = scores.flip(1).logcumsumexp(dim=1).flip(1)
    return (rest - scores)[:, :-1].sum(dim=1).mean()


def thumbs_loss(scores: Float[Tensor, " n"], up: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of −[up·log σ(r) + (1 − up)·log σ(−r)], in nats a response: logistic regression on the score.

    Args:
        scores: of n responses; 0 has even chances.
        up: 1 for thumbs up, 0 for thumbs down.
    """
    if scores.shape != up.shape:
        raise ValueError(f"shapes differ: scores {scores.shape}, up {up.shape}")
    return binary_cross_entropy_with_logits(scores, up)
