"""How a rater changes while it works, in simulated time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from reward_models.raters.decision import Probability
from reward_models.raters.part import Part, Values, column


@dataclass(frozen=True)
class Fatigue(Part):
    """Loses attention in a session: after t hours P becomes e^(−φt)·P + (1 − e^(−φt))/2, with φ ≥ 0 an hour.

    The vigilance decrement (Mackworth 1948) as a constant rate at which attention lapses for the rest of the session;
    the form is ours.
    """

    key = "fatigue"
    low = 0.0
    value: Values = 0.0

    def __call__(self, first: Probability, hours: Float[np.ndarray, " n"]) -> Probability:
        """The probability after `hours` of the session."""
        attention = np.exp(-np.asarray(self.value) * hours)
        chance: Probability = attention * first + (1 - attention) / 2
        return chance


@dataclass(frozen=True)
class Recency(Part):
    """Repeats its last answer of the session: u of that side becomes u + ρ; below 0 it alternates.

    The choice kernel of Lau and Glimcher 2005 ("Dynamic response-by-response models"), over one step.
    """

    key = "recency"
    value: Values = 0.0

    def __call__(self, last: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """What is added to u₁ − u₂; `last` is 1 after the first, −1 after the second, 0 after neither."""
        return self.value * last


@dataclass(frozen=True)
class WeightDrift(Part):
    """Comes to care more or less: after t hours of work w_j becomes w_j·e^(d_j·t), with d an hour.

    The criteria drift of Shankar et al. 2024 ("Who validates the validators", section 5); the form is ours. Unlike
    fatigue it outlasts the session.
    """

    key = "drift"
    of_attributes = True
    value: Values = 0.0

    def __call__(self, weights: Float[np.ndarray, "... A"], hours: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n A"]:
        """The weights after `hours` of work."""
        factor: Float[np.ndarray, "n A"] = np.exp(np.asarray(self.value) * column(hours))
        drifted: Float[np.ndarray, "n A"] = weights * factor
        return drifted
