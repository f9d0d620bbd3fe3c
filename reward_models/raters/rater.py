"""One simulated rater: which of two responses it prefers, given how good they truly are.

A rater decides on true utilities by Bradley and Terry (1952) with a rationality β_k (as in Lee et al.
2021, "B-Pref", eq. 3), then errs with probability ε (B-Pref's "mistake"):

    P(first ≻ second) = (1 − ε)·σ(β_k·(u₁ − u₂)) + ε·σ(β_k·(u₂ − u₁))

Utilities are in units of the reference's within-prompt standard deviation, so that one β_k means the
same on every task. More parts, in `traits`, make it biased, tired or lazy (`reward_models.raters.parts`). A rater
that sees utilities wrongly in a way of its own overrides `perceive`; one that decides in another way is any class
with `name`, `preference_probability` and `label`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from textenv.errors import UsageError

# The raters' names can be listed without waiting for torch.
if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

    from reward_models.raters.parts import Trait
    from textenv.responses import Responses


class Compares(Protocol):
    """Whoever compares pairs of responses; its methods are `Rater`'s, of which `perceive` may be left out."""

    @property
    def name(self) -> str:
        """Kept with every label."""
        ...

    def preference_probability(self, first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Probability of the answer "the first" in each of n pairs, from the utilities that the rater perceives."""
        ...

    def label(
        self, first: Float[Tensor, " n"], second: Float[Tensor, " n"], rng: np.random.Generator
    ) -> Float[Tensor, " n"]:
        """Draws n answers: 1.0 for the first, 0.0 for the second."""
        ...


@runtime_checkable
class Perceives(Protocol):
    """A rater whose utilities are not the true ones."""

    def perceive(self, responses: Responses, utility: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """How good each response seems to the rater, given how good it is."""
        ...


@dataclass(frozen=True)
class Rater:
    """One simulated rater.

    Raises:
        UsageError: the rationality is negative or NaN, or the mistake is no probability.
    """

    name: str
    rationality: float = math.inf
    """β_k ≥ 0 per unit of utility; 0 answers at random, infinity always prefers the better one."""
    mistake: float = 0.0
    """ε in [0, 1], the probability that the answer is flipped."""
    traits: Mapping[str, Trait] = field(default_factory=dict, hash=False)
    """Parameters of more parts by their keys in `reward_models.raters.parts.PARTS`; what is not named is neutral."""

    def __post_init__(self) -> None:
        if not self.rationality >= 0:
            raise UsageError(f"rater {self.name!r}: rationality must be 0 or more, got {self.rationality}")
        if not 0 <= self.mistake <= 1:
            raise UsageError(f"rater {self.name!r}: mistake must be a probability in [0, 1], got {self.mistake}")
        if self.traits:
            self._check_traits()

    def _check_traits(self) -> None:
        from reward_models.raters.parts import check_traits  # Here, since it is rarely needed and slow to import.

        check_traits(f"rater {self.name!r}", self.traits)
        for key in sorted({"rationality", "mistake"} & self.traits.keys()):
            raise UsageError(f"rater {self.name!r}: {key} is an argument of its own; take it out of the traits")
        if not self.only_parts:
            raise UsageError(f"rater {self.name!r}: give it traits or methods of its own, not both")

    @property
    def only_parts(self) -> bool:
        """Whether all that it does is told by its parts, no method being a subclass's."""
        ours = (getattr(Rater, name) for name in ("perceive", "preference_probability", "label"))
        return all(getattr(type(self), method.__name__) is method for method in ours)

    def perceive(self, responses: Responses, utility: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """How good each response seems to the rater: as good as it is. A biased rater overrides this.

        Args:
            responses: B of them, with their prompts.
            utility: how good each one is.
        """
        return utility

    def preference_probability(self, first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Probability that the rater answers "the first", mistakes included; 1/2 between equals.

        Traits are left out: most of them depend on more than on utilities, and act in `reward_models.raters.judge`.
        """
        difference = first.double() - second.double()
        if math.isinf(self.rationality):
            prefers = (1 + difference.sign()) / 2
        else:
            prefers = (self.rationality * difference).sigmoid()
        return (1 - self.mistake) * prefers + self.mistake * (1 - prefers)

    def label(
        self, first: Float[Tensor, " n"], second: Float[Tensor, " n"], rng: np.random.Generator
    ) -> Float[Tensor, " n"]:
        """Draws n answers: 1.0 for the first, 0.0 for the second."""
        probability = self.preference_probability(first, second)
        return (probability.new_tensor(rng.random(len(first))) < probability).float()
