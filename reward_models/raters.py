"""Simulated raters: who prefers which of two responses, given how good they truly are.

A rater decides on true utilities by Bradley and Terry (1952) with a rationality β_k (as in Lee et al.
2021, "B-Pref", eq. 3), then errs with probability ε (B-Pref's "mistake"):

    P(first ≻ second) = (1 − ε)·σ(β_k·(u₁ − u₂)) + ε·σ(β_k·(u₂ − u₁))

Utilities are in units of the reference's within-prompt standard deviation, so that one β_k means the
same on every task. A rater that sees them wrongly overrides `perceive`; one that decides in another way
is any class with `name`, `preference_probability` and `label`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from textenv import plugins
from textenv.errors import UsageError

# The raters' names can be listed without waiting for torch.
if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

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

    def __post_init__(self) -> None:
        if not self.rationality >= 0:
            raise UsageError(f"rater {self.name!r}: rationality must be 0 or more, got {self.rationality}")
        if not 0 <= self.mistake <= 1:
            raise UsageError(f"rater {self.name!r}: mistake must be a probability in [0, 1], got {self.mistake}")

    def perceive(self, responses: Responses, utility: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """How good each response seems to the rater: as good as it is. A biased rater overrides this.

        Args:
            responses: B of them, with their prompts.
            utility: how good each one is.
        """
        return utility

    def preference_probability(self, first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Probability that the rater answers "the first", mistakes included; 1/2 between equals."""
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


class RaterPreset(NamedTuple):
    """A rater to be had by name."""

    description: str
    """One line for people."""
    make: Callable[[], Rater]
    """Makes a rater of this kind."""


RATERS: dict[str, RaterPreset] = {
    "oracle": RaterPreset(
        "always prefers the truly better response, and decides by a coin between equals",
        lambda: Rater("oracle"),
    ),
    # Where utilities are normal, two raters of rationality 2 agree on 76% of the pairs; people agreed on 73 to 77%
    # (Stiennon et al. 2020, section 4.1 and appendix C; Ouyang et al. 2022, section 3.4).
    "bradley-terry": RaterPreset(
        "prefers the better response the more surely the better it is (rationality 2), about as noisy as people",
        lambda: Rater("bradley-terry", rationality=2.0),
    ),
    "mistaken": RaterPreset(
        "prefers the better response but answers wrongly one time in ten, as B-Pref's mistake teacher",
        lambda: Rater("mistaken", mistake=0.1),
    ),
}
"""The raters that are found by name; "bradley-terry" is the default of a run."""


def load_rater(name: str) -> Compares:
    """A rater by name.

    Args:
        name: one of `RATERS`, one that an installed distribution brings, or "module:Class", made without
            arguments; a rater that is made already, as in "module:instance", will do too.

    Raises:
        UsageError: the name is not known, the class cannot be imported or made, or it is no rater.
    """
    if name in RATERS:
        return RATERS[name].make()
    rater: Compares = plugins.made("rater", name, plugins.load("rater", name, RATERS))
    missing = [method for method in ("preference_probability", "label") if not callable(getattr(rater, method, None))]
    if not isinstance(getattr(rater, "name", None), str):
        missing.insert(0, "name")
    if missing:
        raise UsageError(
            f"{name!r} is no rater: it lacks {', '.join(missing)}; derive it from reward_models.raters.Rater, whose "
            "`perceive` is the place for a bias, or give it these itself"
        )
    return rater
