"""How a rater answers, given how good the responses seem to it.

A probability is that of the answer "the first" to a question that is neither skipped nor tied. The order is that
of Lee et al. 2021 ("B-Pref"): skip and tie are decided on the true utilities, then comes the choice, then what
spoils it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from reward_models.raters.part import Part, Values
from reward_models.raters.utility import Utilities

Probability = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Skip(Part):
    """Skips a question whose responses are all bad: max u ≤ δ_skip; 0 never skips.

    The skip teacher of Lee et al. 2021, whose threshold on returns is here one on utility.
    """

    key = "skip"
    low = 0.0
    value: Values = 0.0

    def __call__(self, utility: Utilities) -> Bool[np.ndarray, " n"]:
        """Whether each question is skipped, by the true utilities."""
        skipped: Bool[np.ndarray, " n"] = (utility.max(axis=1) <= self.value) & (np.asarray(self.value) > 0)
        return skipped


@dataclass(frozen=True)
class Tie(Part):
    """Calls responses equal that are nearly so: |u₁ − u₂| < δ_equal; 0 never does.

    The equal teacher of Lee et al. 2021, whose threshold on returns is here one on utility.
    """

    key = "tie"
    low = 0.0
    value: Values = 0.0

    def __call__(self, utility: Utilities) -> Bool[np.ndarray, " n"]:
        """Whether the two of each question are called equal, by the true utilities."""
        equal: Bool[np.ndarray, " n"] = np.abs(utility[:, 0] - utility[:, 1]) < self.value
        return equal


@dataclass(frozen=True)
class Rationality(Part):
    """Prefers the better the more surely the better it is: P = σ(β·(u₁ − u₂)); infinity always prefers it.

    Bradley and Terry 1952; β as in Lee et al. 2021, eq. 3. Between equals it is a coin's decision.
    """

    key = "rationality"
    low = 0.0
    value: Values = math.inf

    def __call__(self, difference: Float[np.ndarray, " n"]) -> Probability:
        """The probability from the difference u₁ − u₂."""
        # Between equals infinity would make NaN; it is multiplied by 0 there, whatever stands in its place.
        beta = np.where(difference == 0, 0.0, self.value)
        chance: Probability = expit(beta * difference)
        return chance


@dataclass(frozen=True)
class Mistake(Part):
    """Gives the other answer with probability ε: P becomes (1 − ε)·P + ε·(1 − P).

    The mistake teacher of Lee et al. 2021; the flips of Dubois et al. 2023 ("AlpacaFarm").
    """

    key = "mistake"
    low, high = 0.0, 1.0
    value: Values = 0.0

    def __call__(self, first: Probability) -> Probability:
        """The probability with mistakes."""
        return (1 - self.value) * first + self.value * (1 - first)


@dataclass(frozen=True)
class RandomClicker(Part):
    """Clicks at random with probability c: P becomes (1 − c)·P + c/2.

    The spammers of Raykar and Yu 2012 ("Eliminating spammers"), whose answers do not depend on the question.
    """

    key = "clicker"
    low, high = 0.0, 1.0
    value: Values = 0.0

    def __call__(self, first: Probability) -> Probability:
        """The probability with random clicks."""
        return (1 - self.value) * first + np.asarray(self.value) / 2
