"""The losses of feedback that is no comparison: rankings, thumbs and scores."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


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


def ordinal_loss(
    scores: Float[Tensor, " n"], level: Int[Tensor, " n"], cuts: Float[Tensor, " L-1"]
) -> Float[Tensor, ""]:
    """Mean of −log P(level), in nats a response, where P(level ≥ l) = σ(r − c_l) for l = 1 … L − 1.

    The cumulative logit model of proportional odds (McCullagh 1980). With two levels, such as thumbs down and up, it is
    logistic regression on the score.

    Args:
        scores: of n responses.
        level: what was said of each, from 0 to L − 1.
        cuts: c, ascending; a score at one has even chances to be beyond it.
    """
    if scores.shape != level.shape or cuts.ndim != 1:
        raise ValueError(f"shapes do not go together: scores {scores.shape}, level {level.shape}, cuts {cuts.shape}")
    if len(level) and not 0 <= int(level.min()) <= int(level.max()) <= len(cuts):
        raise ValueError(f"levels go from 0 to {len(cuts)}, got {int(level.min())} to {int(level.max())}")
    infinity = cuts.new_full((1,), torch.inf)
    ends = torch.cat([-infinity, cuts, infinity])
    # σ(a) − σ(b) = σ(a)·σ(−b)·(1 − e^(b−a)), which loses no digits far out.
    between = torch.log1p(-torch.exp(-ends.diff()))
    said = logsigmoid(scores - ends[level]) + logsigmoid(ends[level + 1] - scores) + between[level]
    return -said.mean()
