"""The audit of a pool of raters: who is worth their labels, who needs watching, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import betainc, ndtr

from reward_models.agreement import Alpha, answer_counts, expected_agreement, fleiss_kappa, krippendorff_alpha
from reward_models.consensus import votes_of
from reward_models.labels import Labels
from reward_models.rater_measures import ByRater, Measures, Shares, measure
from reward_models.reliability import AccuracyPosterior, accuracy_posterior, right_probability
from textenv.errors import TextenvError, UsageError

Verdict = Literal["drop", "minority", "watch", "keep"]
VERDICTS: tuple[Verdict, ...] = ("drop", "minority", "watch", "keep")
NOTABLE = 0.1
"""A share that differs by less from what is expected is not worth watching, however sure the difference."""


STEADY = 0.75
"""Who answers by its own mind so often, and otherwise by a slip, agrees with itself on 0.62 of what is asked again."""


@dataclass(frozen=True)
class AuditConfig:
    """What is asked of a rater.

    Raises:
        UsageError: a value is outside its range.
    """

    useful_accuracy: float = 0.6
    """Whoever is surely right less often is dropped, in (1/2, 1); labels that are right half the time say nothing."""
    confidence: float = 0.95
    """How sure a verdict must be, in (1/2, 1)."""
    fewest_labels: int = 30
    """Answers of a rater, to gold questions or to items that others answered, without which it is only watched."""
    hurry: float = 0.33
    """Watched is whoever takes less than this share of the pool's usual time for a label."""
    resamples: int = 500
    """Bootstrap samples for the interval of alpha; 0 leaves the interval out."""

    def __post_init__(self) -> None:
        checks = {
            "useful_accuracy": (0.5 < self.useful_accuracy < 1, "between 0.5 and 1, both excluded"),
            "confidence": (0.5 < self.confidence < 1, "between 0.5 and 1, both excluded"),
            "fewest_labels": (self.fewest_labels >= 1, "at least 1"),
            "hurry": (0 <= self.hurry < 1, "0 or more and below 1"),
            "resamples": (self.resamples >= 0, "0 or more"),
        }
        for name, (valid, expected) in checks.items():
            if not valid:
                raise UsageError(f"{name} must be {expected}, got {getattr(self, name)}")


@dataclass(frozen=True)
class RaterVerdict:
    """What becomes of one rater."""

    rater: str
    place: int
    """In the arrays of the audit."""
    verdict: Verdict
    evidence: list[str]
    """Why, in words, the weightiest first."""


@dataclass(frozen=True)
class Audit:
    """A pool of R raters."""

    verdicts: list[RaterVerdict]
    """Those to drop first, then those to watch; within each the least accurate first."""
    measures: Measures
    accuracy: AccuracyPosterior
    """How often each is right, as far as gold questions and the others tell."""
    answers: Int[np.ndarray, " R"]
    """Of each rater, skipped questions left out."""
    items: int
    """Items that somebody answered."""
    alpha: Alpha
    """Krippendorff's, of the answers as names; NaN where no item has two."""
    kappa: float
    """Fleiss', of the same; NaN where the items do not all have the same number of answers, two or more."""

    def count(self, verdict: Verdict) -> int:
        """How many raters got it."""
        return sum(each.verdict == verdict for each in self.verdicts)


def audit(labels: Labels, config: AuditConfig, rng: np.random.Generator) -> Audit:
    """Measures every rater and draws a verdict.

    drop: surely right less often than is useful, or surely less consistent across orders than even that would be.
    minority: would be dropped for what the others answered, but answers alike when asked again, as no noise does, and
    gold questions do not tell against it: that is a taste of one's own, which a pool may need.
    keep: surely better than a coin, and nothing stands out. watch: everybody else, also who merely disagrees.

    Args:
        labels: of any raters.
        config: see `AuditConfig`.
        rng: draws the bootstrap samples.

    Raises:
        TextenvError: every question was skipped.
    """
    votes = votes_of(labels)
    right = right_probability(votes)
    measures = measure(labels, votes, right)
    accuracy = accuracy_posterior(votes.rater, right, len(votes.raters))
    try:
        alpha = krippendorff_alpha(votes.item, votes.label, "nominal", rng, resamples=config.resamples)
    except TextenvError:  # No item has two answers: there is no agreement to measure, but all else.
        alpha = Alpha(np.nan, np.nan, np.nan)
    try:
        kappa = fleiss_kappa(answer_counts(votes.item, votes.label)[0])
    except TextenvError:  # The items differ in their number of answers.
        kappa = np.nan
    drops, watches = _reasons(measures, accuracy, config)
    minority, consistency = _of_their_own_mind(measures, config)
    better, known = accuracy.above(0.5), measures.told.share * measures.told.answers
    verdicts = []
    for place, name in enumerate(votes.raters):
        evidence = drops[place] + watches[place]
        if known[place] < config.fewest_labels:
            verdict: Verdict = "watch"
            evidence = [f"only {known[place]:.0f} answers that anything can be told of", *evidence]
        elif drops[place] and minority[place]:
            verdict = "minority"
            evidence = [f"disagrees with the others, but not with itself: {consistency[place]}", *evidence]
        elif drops[place]:
            verdict = "drop"
        elif evidence or better[place] < config.confidence:
            verdict = "watch"
            if better[place] < config.confidence:
                evidence = [f"not surely better than a coin (probability {better[place]:.2f})", *evidence]
        else:
            verdict = "keep"
            evidence = [f"right {_share(accuracy.mean[place])} of the time"]
        verdicts.append(RaterVerdict(str(name), place, verdict, evidence))
    verdicts.sort(key=lambda each: (VERDICTS.index(each.verdict), accuracy.mean[each.place]))
    return Audit(verdicts, measures, accuracy, np.bincount(votes.rater), len(votes.items), alpha, kappa)


def _of_their_own_mind(measures: Measures, config: AuditConfig) -> tuple[Bool[np.ndarray, " R"], list[str]]:
    """Who surely answers questions alike that are asked again and is not told by gold questions to be wrong; and how.

    Whoever answers by a coin agrees with itself on a half, whoever always takes the first never in the other order.
    """
    swap, gold = measures.swap, measures.gold
    wrong = _above(gold, config.useful_accuracy) < 1 - config.confidence
    steady = _above(swap, expected_agreement(STEADY, STEADY)) >= config.confidence
    told = [
        f"{_share(share)} of {answers} answers stay the same when the order is swapped"
        for share, answers in zip(swap.share, swap.answers, strict=True)
    ]
    return steady & ~wrong, told


def _reasons(
    measures: Measures, accuracy: AccuracyPosterior, config: AuditConfig
) -> tuple[list[list[str]], list[list[str]]]:
    """What speaks for dropping and for watching each rater."""
    raters = len(measures.seconds)
    drops: list[list[str]] = [[] for _ in range(raters)]
    watches: list[list[str]] = [[] for _ in range(raters)]
    interval = accuracy.interval()
    useless = accuracy.above(config.useful_accuracy) < 1 - config.confidence
    swap, agreement, first, shift = measures.swap, measures.agreement, measures.first, measures.drift
    # Who is right that often, independently in the two orders, answers the same in both so often.
    least = expected_agreement(config.useful_accuracy, config.useful_accuracy)
    unstable = _above(swap, least) < 1 - config.confidence
    shaky = (_above(swap, 0.5) < config.confidence) & (swap.answers > 0)
    apart = _surely(agreement, agreement.pool, config) & (agreement.share < agreement.pool - NOTABLE)
    leaning = _surely(first, 0.5, config) & (np.abs(first.share - 0.5) > NOTABLE)
    drifting = (_adjusted(shift.p) < 1 - config.confidence) & (shift.slope < 0)
    hurried = measures.seconds < config.hurry * measures.pool_seconds
    for place in range(raters):
        low, high = interval[place]
        swapped = (
            f"{_share(swap.share[place])} of {swap.answers[place]} answers stay the same when the order is swapped"
        )
        if useless[place]:
            drops[place].append(f"right {_share(accuracy.mean[place])} of the time [{low:.2f}, {high:.2f}]")
        if unstable[place]:
            drops[place].append(f"only {swapped}")
        elif shaky[place]:
            watches[place].append(swapped)
        if apart[place]:
            watches[place].append(
                f"agrees with others on {_share(agreement.share[place])}, the pool on {_share(agreement.pool)}"
            )
        if leaning[place]:
            watches[place].append(f"{_share(first.share[place])} of its answers are for what is shown first")
        if drifting[place]:
            watches[place].append(
                f"right less often as a session lasts ({100 * shift.slope[place]:+.0f} points an hour)"
            )
        if hurried[place]:
            watches[place].append(
                f"takes {measures.seconds[place]:.1f} s a label, the pool {measures.pool_seconds:.1f} s"
            )
    return drops, watches


def _above(shares: Shares, threshold: float) -> ByRater:
    """Posterior probability that a share is above a threshold, all shares being alike before."""
    successes = np.nan_to_num(shares.share) * shares.answers
    above: ByRater = 1 - betainc(1 + successes, 1 + shares.answers - successes, threshold)
    return above


def _surely(shares: Shares, expected: float, config: AuditConfig) -> Float[np.ndarray, " R"]:
    """Whether each share differs from what is expected, by the normal approximation, all raters considered."""
    deviation = np.sqrt(expected * (1 - expected) / np.maximum(shares.answers, 1))
    z = np.abs(shares.share - expected) / np.maximum(deviation, 1e-12)
    sure: Float[np.ndarray, " R"] = _adjusted(2 * ndtr(-z)) < 1 - config.confidence
    return sure


def _adjusted(p: ByRater) -> ByRater:
    """p-values that hold the false discovery rate (Benjamini and Hochberg 1995); 1 where there is none."""
    from scipy.stats import false_discovery_control  # Only here: it takes a second to load, and every training waits.

    adjusted: ByRater = false_discovery_control(np.where(np.isnan(p), 1.0, p))
    return adjusted


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
