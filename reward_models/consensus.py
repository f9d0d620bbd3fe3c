"""What several raters' answers to an item come to, and how far each of them can be relied on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from reward_models.calibration import BetaPosterior, gold_answers, weighted_vote, weights
from reward_models.crowd_bt_pairs import pair_answers, pair_crowd_bt
from reward_models.dawid_skene import dawid_skene
from reward_models.labels import Labels
from textenv.errors import TextenvError, unknown_name

IMAGINED_RIGHT, IMAGINED_WRONG = 2.0, 1.0
"""Answers that every rater is taken to have given already: a reliability of 2/3, until told otherwise."""


class Votes(NamedTuple):
    """n answers, turned to the order of their items; skipped questions are not among them."""

    items: Int[np.ndarray, " I"]
    """Identities of the items, ascending."""
    raters: list[str | None]
    """Names of R raters, in the order of their first answer."""
    item: Int[np.ndarray, " n"]
    """Place in `items`."""
    rater: Int[np.ndarray, " n"]
    """Place in `raters`."""
    label: Float[np.ndarray, " n"]
    """1 where the item's first response was preferred, 0 the second, 0.5 for a tie."""
    gold: Float[np.ndarray, " I"]
    """The right answer in the order of the item, NaN where it is unknown."""
    right: Float[np.ndarray, " R"]
    """Right answers to gold questions."""
    wrong: Float[np.ndarray, " R"]
    """Wrong ones."""


class Consensus(NamedTuple):
    """What I items come to, and R raters."""

    item: Int[np.ndarray, " I"]
    """Identities of the items that somebody answered, ascending."""
    label: Float[np.ndarray, " I"]
    """Probability in [0, 1] that the item's first response is the better one."""
    rater: list[str | None]
    reliability: Float[np.ndarray, " R"]
    """Probability in [0, 1] with which each rater answers what is right."""


def votes_of(labels: Labels) -> Votes:
    """The answers among the labels.

    Raises:
        TextenvError: every question was skipped.
    """
    answered = labels[~np.isnan(labels.label)]
    if not len(answered):
        raise TextenvError(f"there is no answer among the {len(labels)} labels: every question was skipped")
    raters, right, wrong = gold_answers(answered)
    items, item = np.unique(answered.item, return_inverse=True)
    gold = np.full(len(items), np.nan)
    known = np.where(answered.swapped, 1 - answered.gold_answer, answered.gold_answer)
    gold[item[answered.gold]] = known[answered.gold]
    return Votes(items, raters, item, answered.codes("rater")[1], answered.item_label.astype(float), gold, right, wrong)


def consensus(labels: Labels, method: str) -> Consensus:
    """One label an item from all answers to it.

    Args:
        labels: of any raters; questions that were skipped tell nothing, ties speak for both sides alike, and the
            answers to gold questions are taken for what they are.
        method: one of `METHODS`.

    Raises:
        UsageError: there is no such method.
        TextenvError: every question was skipped.
    """
    if method not in METHODS:
        raise unknown_name("consensus", method, METHODS)
    votes = votes_of(labels)
    label, reliability = METHODS[method](votes)
    return Consensus(votes.items, np.where(np.isnan(votes.gold), label, votes.gold), votes.raters, reliability)


Estimate = tuple[Float[np.ndarray, " I"], Float[np.ndarray, " R"]]


def mean(votes: Votes) -> Estimate:
    """The share of an item's answers that speak for its first response; reliabilities as by `majority`."""
    label: Float[np.ndarray, " I"] = np.bincount(votes.item, votes.label) / np.bincount(votes.item)
    return label, majority(votes)[1]


def majority(votes: Votes) -> Estimate:
    """1, 0 or, where both sides have as many votes, 0.5; a rater's reliability is the agreement with it."""
    lead = np.bincount(votes.item, 2 * votes.label - 1)
    side = np.sign(lead)
    agreement = (1 + side[votes.item] * (2 * votes.label - 1)) / 2
    return (1 + side) / 2, np.bincount(votes.rater, agreement) / np.bincount(votes.rater)


def by_dawid_skene(votes: Votes) -> Estimate:
    """The posterior of `dawid_skene` with the classes "second is better" and "first is better"."""
    known = np.stack([1 - votes.gold, votes.gold], axis=1)
    fitted = dawid_skene(votes.item, votes.rater, np.stack([1 - votes.label, votes.label], axis=1), known=known)
    return fitted.posterior[:, 1], fitted.accuracy


def by_crowd_bt(votes: Votes) -> Estimate:
    """The probabilities of `pair_crowd_bt`; gold questions count towards reliability."""
    unknown = np.isnan(votes.gold)[votes.item]
    item, rater, label = votes.item[unknown], votes.rater[unknown], votes.label[unknown]
    right, wrong = votes.right + IMAGINED_RIGHT, votes.wrong + IMAGINED_WRONG
    if not len(item):
        return votes.gold, (1 + right) / (2 + right + wrong)
    fitted = pair_crowd_bt(pair_answers(item, rater, label, right, wrong))
    probability = np.full(len(votes.items), 0.5)
    probability[: len(fitted.probability)] = fitted.probability
    return probability, fitted.reliability


def by_gold(votes: Votes) -> Estimate:
    """Votes weighted by what gold questions say of each rater, and by nothing else."""
    posterior = BetaPosterior(1 + votes.right, 1 + votes.wrong)
    return weighted_vote(votes.item, votes.rater, votes.label, weights(posterior)), posterior.mean


METHODS: dict[str, Callable[[Votes], Estimate]] = {
    "mean": mean,
    "majority": majority,
    "dawid-skene": by_dawid_skene,
    "crowd-bt": by_crowd_bt,
    "gold": by_gold,
}
"""How answers are put together, by name."""
