"""The loss of comparisons, of a reward model's scores or a policy's implicit rewards, and labels that allow for noise.

The loss is linear in the label and the parts of a label add up to 1, so what is done about noisy labels
can be done to the labels: smoothing draws them towards 1/2, and correcting for flips does the reverse.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry_loss(
    first: Float[Tensor, " n"],
    second: Float[Tensor, " n"],
    label: Float[Tensor, " n"],
    weight: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of −[label·log σ(r₁ − r₂) + (1 − label)·log σ(r₂ − r₁)], in nats a comparison.

    Bradley and Terry 1952; as a loss for rewards: Christiano et al. 2017, eq. 1.

    Args:
        first: r₁.
        second: r₂.
        label: the probability that the first is preferred; outside [0, 1] where it was corrected for flips.
        weight: how much each comparison counts, 0 or more; the mean is the weighted one. None is 1 for each.

    Raises:
        ValueError: the shapes differ.
    """
    if not first.shape == second.shape == label.shape or (weight is not None and weight.shape != label.shape):
        weights = "" if weight is None else f", weight {weight.shape}"
        raise ValueError(f"shapes differ: first {first.shape}, second {second.shape}, label {label.shape}{weights}")
    difference = first - second
    losses = label * logsigmoid(difference) + (1 - label) * logsigmoid(-difference)
    return -losses.mean() if weight is None else -(weight * losses).sum() / weight.sum()


def smoothed_label(label: Float[Tensor, " n"], smoothing: float) -> Float[Tensor, " n"]:
    """(1 − ε)·label + ε·(1 − label): the label where each is flipped with the probability ε.

    For comparisons: "conservative DPO", Mitchell 2023. At 0 the labels stay the same to the bit.
    """
    return (1 - smoothing) * label + smoothing * (1 - label)


def unflipped_label(label: Float[Tensor, " n"], flipped: float | Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """(label − ε)/(1 − 2ε): the loss with it is, on average over flips of probability ε, that of the labels before.

    It makes of the loss ℓ the unbiased [(1 − ε)·ℓ(label) − ε·ℓ(1 − label)]/(1 − 2ε) of Natarajan et al. 2013
    (lemma 1), for preferences: Chowdhury et al. 2024 ("robust DPO"). It turns `smoothed_label` back.
    A single loss has no lower bound then: what can learn single labels by heart must be stopped early.

    Args:
        label: in [0, 1].
        flipped: ε, of all or of each; not 1/2, where a label says nothing. Above it, an adversary's is turned round.

    Raises:
        ValueError: ε is 1/2.
    """
    scale = 1 - 2 * flipped
    if bool(scale == 0 if isinstance(scale, float) else (scale == 0).any()):
        raise ValueError("labels that are flipped with probability 1/2 say nothing; leave them out")
    return (label - flipped) / scale
