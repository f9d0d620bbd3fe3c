"""How far raters agree, and how far beyond chance."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from textenv.errors import TextenvError

Level = Literal["nominal", "ordinal", "interval"]
"""What two different answers have between them: no more than that, an order, or a distance."""


class Alpha(NamedTuple):
    """Krippendorff's α with its interval."""

    value: float
    """1 for perfect agreement, 0 for chance, below 0 for systematic disagreement; NaN where all answers are equal."""
    low: float
    high: float


def krippendorff_alpha(
    item: Int[np.ndarray, " n"],
    answer: Float[np.ndarray, " n"],
    level: Level,
    rng: np.random.Generator,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Alpha:
    """α = 1 − D_observed/D_expected (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

    Answers may be missing; items with one answer are left out. The interval is the percentile bootstrap's
    over items, which takes the raters for given.

    Args:
        item: which item each answer is about.
        answer: a number; equal ones agree.
        level: of measurement.
        rng: draws the resampled items.
        resamples: 0 gives no interval, but NaN.
        confidence: of the interval, in (0, 1).

    Raises:
        TextenvError: no item has two answers.
    """
    counts, values = answer_counts(item, answer)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        raise TextenvError("agreement needs items that two raters answered; every item here has one answer")
    # Each item's coincidences: pairs of its answers, weighted so that each answer counts once.
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(len(values)) * counts[:, :, None]
    pairs = pairs / (counts.sum(axis=1) - 1)[:, None, None]
    flat = pairs.reshape(len(counts), -1)

    def alpha(weight: Float[np.ndarray, " I"]) -> float:
        return _alpha((weight @ flat).reshape(len(values), -1), values, level)

    value = alpha(np.ones(len(counts)))
    chance = np.full(len(counts), 1 / len(counts))
    drawn = np.array([alpha(rng.multinomial(len(counts), chance)) for _ in range(resamples)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Alpha(value, np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Alpha(value, float(low), float(high))


def _alpha(coincidence: Float[np.ndarray, "V V"], values: Float[np.ndarray, " V"], level: Level) -> float:
    margin = coincidence.sum(axis=1)
    total = margin.sum()
    distance = _squared_distance(values, margin, level)
    expected = (np.outer(margin, margin) * distance).sum() / (total - 1)
    return float(1 - (coincidence * distance).sum() / expected) if expected > 0 else np.nan


def _squared_distance(
    values: Float[np.ndarray, " V"], margin: Float[np.ndarray, " V"], level: Level
) -> Float[np.ndarray, "V V"]:
    """δ² of Krippendorff 2011; an ordinal distance is the number of answers between two, half of both included."""
    if level == "nominal":
        return 1 - np.eye(len(values))
    place = values if level == "interval" else np.cumsum(margin) - margin / 2
    distance: Float[np.ndarray, "V V"] = (place[:, None] - place[None, :]) ** 2
    return distance


def answer_counts(
    item: Int[np.ndarray, " n"], answer: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "I V"], Float[np.ndarray, " V"]]:
    """How often each item got each of V different answers, and these in ascending order."""
    values, column = np.unique(answer, return_inverse=True)
    items, row = np.unique(item, return_inverse=True)
    counts = np.bincount(row * len(values) + column, minlength=len(items) * len(values))
    return counts.reshape(len(items), len(values)).astype(float), values


def fleiss_kappa(counts: Float[np.ndarray, "I V"]) -> float:
    """κ = (P̄ − P̄_e)/(1 − P̄_e) for items answered by the same number of raters each (Fleiss 1971).

    Args:
        counts: how often each item got each answer.

    Returns:
        1 for perfect agreement, 0 for chance; NaN where all answers are equal.

    Raises:
        TextenvError: the items differ in their number of answers, or have one each.
    """
    each = counts.sum(axis=1)
    if not len(counts) or each.min() != each.max() or each.min() < 2:
        found = f"from {each.min():g} to {each.max():g}" if len(counts) else "no items"
        raise TextenvError(
            f"Fleiss' kappa needs the same number of answers to every item, 2 or more, got {found}; "
            "Krippendorff's alpha does without"
        )
    raters = each[0]
    observed = float(((counts**2).sum(axis=1) - raters).mean() / (raters * (raters - 1)))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (observed - chance) / (1 - chance) if chance < 1 else np.nan


def agreement_with_others(
    item: Int[np.ndarray, " n"], rater: Int[np.ndarray, " n"], answer: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Share of the others' answers to the same item that equal each answer; NaN where there is no other.

    A rater's answers are never held against other answers of the same rater.
    """
    values, column = np.unique(answer, return_inverse=True)
    items, row = np.unique(item, return_inverse=True)
    same = _sizes(row * len(values) + column) - _sizes((rater * len(items) + row) * len(values) + column)
    others = _sizes(row) - _sizes(rater * len(items) + row)
    share = np.full(len(item), np.nan)
    np.divide(same, others, out=share, where=others > 0)
    return share


def _sizes(key: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many rows have each row's key."""
    _, place, count = np.unique(key, return_inverse=True, return_counts=True)
    sizes: Int[np.ndarray, " n"] = count[place]
    return sizes


class Paired(NamedTuple):
    """Answers of one rater to one item, given twice."""

    rater: Int[np.ndarray, " m"]
    equal: Bool[np.ndarray, " m"]


def paired_answers(
    item: Int[np.ndarray, " n"],
    rater: Int[np.ndarray, " n"],
    swapped: Bool[np.ndarray, " n"],
    answer: Float[np.ndarray, " n"],
    *,
    across_orders: bool,
) -> Paired:
    """Whether raters who got a question again gave the same answer, in the order of the item.

    Args:
        item: which item each answer is about.
        rater: who gave it.
        swapped: in which order the responses were shown.
        answer: in the order of the item, whichever was shown.
        across_orders: compares the first answer in each order, which tells of position bias; otherwise answers
            in the same order with the one before, which tells of noise alone.
    """
    columns = np.stack([rater, item, swapped.astype(int)])
    order = np.lexsort(columns[::-1])  # Stable: answers to one question stay in the order given.
    question = columns[:, order]
    if across_orders:
        first = np.append(True, (np.diff(question) != 0).any(axis=0))
        order, question = order[first], question[:2, first]
    again = (np.diff(question) == 0).all(axis=0)
    one, other = order[:-1][again], order[1:][again]
    return Paired(rater[one], answer[one] == answer[other])


def expected_agreement(first: float, second: float) -> float:
    """a·b + (1 − a)·(1 − b): how often two answer alike who are right, independently, at the rates a and b.

    Also what is left of an agreement a when answers are flipped so that b of them stay: labels flipped at
    the rate 1/4, as AlpacaFarm's (Dubois et al. 2023), bring an agreement a to 1/4 + a/2.
    """
    return first * second + (1 - first) * (1 - second)
