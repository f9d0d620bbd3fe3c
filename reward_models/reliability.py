"""How often a rater is right, judged by gold questions and by what the other raters answered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_softmax, logit

from reward_models.consensus import Votes
from reward_models.dawid_skene import dawid_skene

ACCURACIES = (np.arange(200) + 0.5) / 200
"""The grid of accuracies."""


class AccuracyPosterior(NamedTuple):
    """What is known of the accuracy of R raters, on a grid of them; all alike before the first answer."""

    mass: Float[np.ndarray, "R G"]
    """Probability of each accuracy of `ACCURACIES`; rows sum to 1."""

    @property
    def mean(self) -> Float[np.ndarray, " R"]:
        """E[accuracy]."""
        mean: Float[np.ndarray, " R"] = self.mass @ ACCURACIES
        return mean

    def above(self, threshold: float) -> Float[np.ndarray, " R"]:
        """Probability that each accuracy is above a threshold; exact for multiples of 1/200."""
        above: Float[np.ndarray, " R"] = self.mass[:, threshold < ACCURACIES].sum(axis=1)
        return above

    def interval(self, level: float = 0.95) -> Float[np.ndarray, "R 2"]:
        """The central interval that holds each accuracy with the probability `level`, to 1/200."""
        below = self.mass.cumsum(axis=1)
        ends = [(below < tail).sum(axis=1) for tail in ((1 - level) / 2, (1 + level) / 2)]
        ends_at: Float[np.ndarray, "R 2"] = ACCURACIES[np.minimum(np.stack(ends, axis=1), len(ACCURACIES) - 1)]
        return ends_at


def right_probability(votes: Votes) -> Float[np.ndarray, " n"]:
    """Probability that each answer is right, given gold answers and the answers of the others alone.

    The posterior of Dawid and Skene without what the rater itself said of the item; 1/2 where nobody
    else tells anything. A tie is half right, whatever the truth.
    """
    known = np.stack([1 - votes.gold, votes.gold], axis=1)
    answer = np.stack([1 - votes.label, votes.label], axis=1)
    fitted = dawid_skene(votes.item, votes.rater, answer, known=known)
    log_confusion = np.log(fitted.confusion)
    lean = (log_confusion[:, 1] - log_confusion[:, 0])[votes.rater]  # [answer, answered]
    evidence = (answer * lean).sum(axis=1)
    prior = logit(fitted.prior[1])
    total = prior + np.bincount(votes.item, evidence)[votes.item]
    _, own = np.unique(votes.rater * len(votes.items) + votes.item, return_inverse=True)
    first = expit(total - np.bincount(own, evidence)[own])
    gold = votes.gold[votes.item]
    first = np.where(np.isnan(gold), first, gold)
    right: Float[np.ndarray, " n"] = votes.label * first + (1 - votes.label) * (1 - first)
    return right


def accuracy_posterior(rater: Int[np.ndarray, " n"], right: Float[np.ndarray, " n"], raters: int) -> AccuracyPosterior:
    """The posterior ∝ Π_i [a·q_i + (1 − a)·(1 − q_i)] of each rater's accuracy a, from a uniform prior.

    Where every q is 1 or 0, this is `calibration.BetaPosterior`; answers with q = 1/2 tell nothing.

    Args:
        rater: who gave each answer, from 0.
        right: q_i, the probability that the answer is right.
        raters: R.
    """
    log_mass = np.empty((raters, len(ACCURACIES)))
    for place, accuracy in enumerate(ACCURACIES):
        chance = accuracy * right + (1 - accuracy) * (1 - right)
        log_mass[:, place] = np.bincount(rater, np.log(chance), raters)
    return AccuracyPosterior(np.exp(log_softmax(log_mass, axis=1)))
