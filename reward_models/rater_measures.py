"""What can be counted of each rater: how it answers, how fast, and whether that changes while a session lasts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr

from reward_models.agreement import agreement_with_others, paired_answers
from reward_models.consensus import Votes
from reward_models.labels import Labels

ByRater = Float[np.ndarray, " R"]


class Shares(NamedTuple):
    """A share of each rater's answers and how many answers it is of; NaN where there are none."""

    share: ByRater
    answers: Int[np.ndarray, " R"]
    pool: float
    """The share of all answers."""


class Drift(NamedTuple):
    """How a share changes while a session lasts."""

    slope: ByRater
    """Of the share, an hour; NaN where there is too little to tell."""
    p: ByRater
    """How likely a slope as steep is where nothing changes, by the trend test of Armitage (1955)."""
    pool_slope: float
    """Of all raters together, each held against itself."""
    pool_p: float


class Measures(NamedTuple):
    """R raters, in the order of `Votes.raters`."""

    told: Shares
    """Share of the answers about which gold questions or others tell anything."""
    skipped: Shares
    ties: Shares
    gold: Shares
    """Right answers to gold questions."""
    agreement: Shares
    """Equal answers among those that others gave to the same items."""
    first: Shares
    """Answers for what is shown first, ties left out."""
    longer: Shares
    """Answers for the longer response, ties and equal lengths left out."""
    swap: Shares
    """Items answered in both orders with the same answer."""
    self: Shares
    """Questions answered again, in the same order, with the same answer."""
    true: Shares
    """Answers that the true utilities agree with, where these are known."""
    drift: Drift
    """Of being right."""
    seconds: Float[np.ndarray, " R"]
    """Median time of a label."""
    pool_seconds: float


def measure(labels: Labels, votes: Votes, right: Float[np.ndarray, " n"]) -> Measures:
    """Counts.

    Args:
        labels: all of them.
        votes: the answers among them.
        right: the probability that each answer is right.
    """
    answered = ~np.isnan(labels.label)
    shown = labels[answered]
    raters, item, rater = len(votes.raters), votes.item, votes.rater
    number = {name: place for place, name in enumerate(votes.raters)}
    asked = np.array([number.get(name, -1) for name in labels.rater])  # -1 never answered anything.
    agreement = agreement_with_others(item, rater, votes.label)
    told = ~np.isnan(agreement) | shown.gold
    decided = np.where(shown.label == 0.5, np.nan, shown.label).astype(float)
    length = np.sign(shown.first_length - shown.second_length)
    utility = np.sign(shown.utility_first.astype(float) - shown.utility_second)
    swap, again = (
        paired_answers(item, rater, shown.swapped, votes.label, across_orders=across) for across in (True, False)
    )
    seconds = seconds_per_label(labels)[answered]
    return Measures(
        told=shares(rater, told.astype(float), raters),
        skipped=shares(asked[asked >= 0], (~answered)[asked >= 0].astype(float), raters),
        ties=shares(rater, (votes.label == 0.5).astype(float), raters),
        gold=shares(rater, 1 - np.abs(shown.label - shown.gold_answer).astype(float), raters),
        agreement=shares(rater, agreement, raters),
        first=shares(rater, decided, raters),
        longer=shares(rater, np.where(length == 0, np.nan, (1 + length * np.sign(decided - 0.5)) / 2), raters),
        swap=shares(swap.rater, swap.equal.astype(float), raters),
        self=shares(again.rater, again.equal.astype(float), raters),
        true=shares(rater, np.where(utility == 0, np.nan, (1 + utility * np.sign(shown.label - 0.5)) / 2), raters),
        drift=drift(rater[told], shown.session_time[told] / 3600, right[told], raters),
        seconds=np.array([np.median(seconds[rater == place]) for place in range(raters)]),
        pool_seconds=float(np.median(seconds)),
    )


def shares(rater: Int[np.ndarray, " n"], value: Float[np.ndarray, " n"], raters: int) -> Shares:
    """Means of the values in [0, 1], NaN left out, of each of R raters and of all."""
    rater, value = rater[~np.isnan(value)], value[~np.isnan(value)]
    count = np.bincount(rater, minlength=raters)
    mean = np.full(raters, np.nan)
    np.divide(np.bincount(rater, value, raters), count, out=mean, where=count > 0)
    return Shares(mean, count, float(value.mean()) if len(value) else np.nan)


def drift(
    rater: Int[np.ndarray, " n"], hours: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"], raters: int
) -> Drift:
    """Fits a line to each rater's answers over the age of the session: z = r·√n (Armitage 1955).

    Args:
        rater: who answered.
        hours: how long the session had lasted.
        right: in [0, 1], the probability that the answer is right.
        raters: R.
    """
    count = np.bincount(rater, minlength=raters)
    x, y = (value - (np.bincount(rater, value, raters) / np.maximum(count, 1))[rater] for value in (hours, right))
    xx, xy, yy = (np.bincount(rater, product, raters) for product in (x * x, x * y, y * y))
    slope, p = _trend(xx, xy, yy, count)
    pool_slope, pool_p = _trend(*(np.array([total.sum()]) for total in (xx, xy, yy, count)))
    return Drift(slope, p, float(pool_slope[0]), float(pool_p[0]))


def _trend(xx: ByRater, xy: ByRater, yy: ByRater, count: Int[np.ndarray, " R"]) -> tuple[ByRater, ByRater]:
    known = (xx > 1e-12) & (yy > 1e-12) & (count >= 3)
    slope, z = np.full(len(xx), np.nan), np.full(len(xx), np.nan)
    np.divide(xy, xx, out=slope, where=known)
    np.divide(xy * np.sqrt(count), np.sqrt(xx * yy), out=z, where=known)
    return slope, 2 * ndtr(-np.abs(z))


def seconds_per_label(labels: Labels) -> Float[np.ndarray, " n"]:
    """Time from a rater's label before to this one, in the same session, or from the session's start."""
    _, rater = labels.codes("rater")
    order = np.lexsort((labels.session_time, labels.session, rater))
    time, session, who = labels.session_time[order], labels.session[order], rater[order]
    before = np.concatenate([[0.0], time[:-1]])
    before[np.append(True, (np.diff(session) != 0) | (np.diff(who) != 0))] = 0.0
    seconds = np.empty(len(time))
    seconds[order] = time - before
    return seconds
