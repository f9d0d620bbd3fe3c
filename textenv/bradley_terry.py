"""The loss of comparisons: of a reward model's scores, or of a policy's implicit rewards."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry_loss(
    first: Float[Tensor, " n"], second: Float[Tensor, " n"], label: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean of −[label·log σ(r₁ − r₂) + (1 − label)·log σ(r₂ − r₁)], in nats a comparison.

    Bradley and Terry 1952; as a loss for rewards: Christiano et al. 2017, eq. 1.
    """
    if not first.shape == second.shape == label.shape:
        raise ValueError(f"shapes differ: first {first.shape}, second {second.shape}, label {label.shape}")
    difference = first - second
    return -(label * logsigmoid(difference) + (1 - label) * logsigmoid(-difference)).mean()
