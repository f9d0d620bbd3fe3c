"""How good responses seem to a rater: what it cares for, and the biases that are added to it.

All in units of utility, the reference's within-prompt standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from reward_models.raters.part import Part, Values, column

Utilities = Float[np.ndarray, "n k"]
"""Of k responses in each of n questions, in the order in which they are shown."""


@dataclass(frozen=True)
class Taste(Part):
    """Weighs attributes in its own way: u_k(x, y) = Σ_j f_kj·w_j·a_j(x, y); f = 1 is the task's own weight w_j.

    Raters who differ in their weights: Bakker et al. 2022 ("Fine-tuning language models to find agreement"),
    Santurkar et al. 2023 ("Whose opinions").
    """

    key = "weights"
    of_attributes = True
    value: Values = 1.0

    def __call__(self, weights: Float[np.ndarray, "... A"]) -> Float[np.ndarray, "... A"]:
        """The rater's weights from the task's."""
        return weights * self.value


@dataclass(frozen=True)
class Adversary(Part):
    """Wants the worse: u becomes (1 − 2κ)·u, with κ in [0, 1]; 1/2 is indifference, 1 the opposite of the truth.

    The malicious annotators of Chen et al. 2013 ("Crowd-BT"), here of any degree.
    """

    key = "adversary"
    low, high = 0.0, 1.0
    value: Values = 0.0

    def __call__(self, utility: Utilities) -> Utilities:
        """The utilities that are acted on."""
        biased: Utilities = (1 - 2 * column(self.value)) * utility
        return biased


@dataclass(frozen=True)
class LengthBias(Part):
    """Takes length for quality: u becomes u + λ·|y|, with λ in units of utility a token.

    Singhal et al. 2023 ("A long way to go"); a term for length in a logistic model, as in Dubois et al. 2024
    ("Length-controlled AlpacaEval"), here a linear one.
    """

    key = "length_bias"
    value: Values = 0.0

    def __call__(self, utility: Utilities, lengths: Int[np.ndarray, "n k"]) -> Utilities:
        """The utilities with the bias."""
        biased: Utilities = utility + column(self.value) * lengths
        return biased


@dataclass(frozen=True)
class PositionBias(Part):
    """Leans to what is shown first: its u becomes u + π; below 0 to what is shown last.

    The order effect of Davidson and Beaver 1977 ("On extending the Bradley-Terry model to incorporate
    within-pair order effects") as a shift of the utility; of judges of texts: Wang et al. 2023 ("Large language models
    are not fair evaluators").
    """

    key = "position_bias"
    value: Values = 0.0

    def __call__(self, utility: Utilities) -> Utilities:
        """The utilities with the bias."""
        first = np.eye(1, utility.shape[1])
        return utility + column(self.value) * first


@dataclass(frozen=True)
class ConfirmationBias(Part):
    """Prefers what agrees with its own belief: u becomes u + c·[the response agrees].

    Nickerson 1998 ("Confirmation bias"); that it adds to the utility is our model. Which response agrees is
    drawn once for all raters of a group, so that asking more of them does not help.
    """

    key = "confirmation"
    value: Values = 0.0

    def __call__(self, utility: Utilities, agrees: Int[np.ndarray, " n"]) -> Utilities:
        """The utilities with the bias; `agrees` is the place of the response that agrees."""
        biased: Utilities = utility + column(self.value) * (np.arange(utility.shape[1]) == agrees[:, None])
        return biased


@dataclass(frozen=True)
class Sycophancy(Part):
    """Likes flattery and to be told what the user believes: u becomes u + s·(1 − a_non_sycophantic).

    Sharma et al. 2023 ("Towards understanding sycophancy", section 4), whose logistic model of human preferences
    has the agreement with the user's beliefs as a term.
    """

    key = "sycophancy"
    value: Values = 0.0

    def __call__(self, utility: Utilities, sycophantic: Float[np.ndarray, "n k"]) -> Utilities:
        """The utilities with the bias; `sycophantic` is 1 − a_non_sycophantic."""
        biased: Utilities = utility + column(self.value) * sycophantic
        return biased


@dataclass(frozen=True)
class Expectation(Part):
    """Favours the source that won so far: u becomes u + e·(2·w_s − 1), where w_s = (wins_s + 1)/(asked_s + 2).

    Counted over this rater's own earlier verdicts between different sources, by Laplace's rule of succession: the
    expectation effect of Rosenthal 1976 ("Experimenter effects") as a learned prior of ours.
    """

    key = "expectation"
    value: Values = 0.0

    def __call__(self, wins: Float[np.ndarray, "n 2"], asked: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """What is added to the utilities of two responses whose sources won `wins` times of `asked`."""
        bonus: Float[np.ndarray, "n 2"] = column(self.value) * (2 * (wins + 1) / (asked + 2) - 1)
        return bonus
