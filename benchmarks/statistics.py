"""Statistics of scores over runs and tasks, as pure functions.

Scores come as strata: one array of runs for each task (and rater), which may differ in length where runs
failed. The aggregates and their intervals are those of Agarwal et al. 2021, "Deep Reinforcement Learning at
the Edge of the Statistical Precipice" (sections 4.1 to 4.3). The verdict on two agents does not bootstrap:
with the few seeds that people can pay for, percentile intervals are too narrow. It takes Student's t on
differences within a seed, which fixes prompts, raters and evaluation noise for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy import stats

from textenv.errors import UsageError

Strata: TypeAlias = Sequence[Float[np.ndarray, "*batch n"]]
"""One array of runs for each stratum: a task, or a task with a rater. Axes before the last are resamples."""

Values: TypeAlias = Float[np.ndarray, "*batch"]
"""A statistic, of each resample."""

Answer = Literal["better", "worse", "cannot tell"]

MOST_SEEDS = 1000
"""Beyond so many seeds nobody goes, and their number is not told."""
POWER = 0.8
"""Probability with which the seeds that are asked for should settle a comparison."""


class Interval(NamedTuple):
    """An estimate with its interval; ends are NaN where the runs do not tell."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """How one agent compares with another over equal seeds."""

    difference: Interval
    """Mean over strata of the mean difference; positive where the first is better."""
    answer: Answer
    pairs: int
    """Runs of both with equal stratum and seed."""
    more_seeds: int | None
    """Seeds a stratum, beyond those there are, that would settle it in four of five cases if the difference is as
    large as it looks; 0 where it is settled, None where they would be more than anybody runs or nothing is known."""


def mean(strata: Strata) -> Values:
    """Mean over strata of the mean over runs."""
    return np.asarray(np.mean(_means(strata), axis=0))


def median(strata: Strata) -> Values:
    """Median over strata of the mean over runs (Agarwal et al. 2021, section 2)."""
    return np.asarray(np.median(_means(strata), axis=0))


def interquartile_mean(strata: Strata) -> Values:
    """Mean of the middle half of all runs, a quarter of them cut off at either end (section 4.3)."""
    return np.asarray(stats.trim_mean(np.concatenate(_checked(strata), axis=-1), 0.25, axis=-1))


def optimality_gap(strata: Strata, target: float = 1.0) -> Values:
    """Mean amount by which runs fall short of `target`; those beyond it count as at it (section 4.3).

    For shares of the optimum the target 1 is J* itself.
    """
    return mean([np.maximum(target - scores, 0.0) for scores in _checked(strata)])


def probability_of_improvement(first: Strata, second: Strata) -> Values:
    """P(a run of the first beats one of the second on a random stratum), ties counting one half (section 4.3).

    This is the Mann-Whitney U statistic over the number of pairs, averaged over strata.
    """
    return np.asarray(np.mean([_wins(a, b) for a, b in zip(_checked(first), _checked(second), strict=True)], axis=0))


def performance_profile(strata: Strata, thresholds: Float[np.ndarray, " t"]) -> Float[np.ndarray, "*batch t"]:
    """Fraction of runs that score more than each threshold, averaged over strata (section 4.2).

    Args:
        strata: the scores.
        thresholds: in ascending order.
    """
    # Added up one after the other: of resamples each is large.
    return np.asarray(sum(_above(scores, thresholds) for scores in _checked(strata)) / len(strata))


def profile_band(
    strata: Strata,
    thresholds: Float[np.ndarray, " t"],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]] | None:
    """The ends of a performance profile's percentile intervals, threshold by threshold; resampled as below.

    None where each stratum has but one run.
    """
    if _noiseless([strata]):
        return None
    profiles = performance_profile(_resampled(strata, rng, resamples), thresholds)
    low, high = np.quantile(profiles, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def stratified_bootstrap(
    samples: Sequence[Strata],
    statistic: Callable[..., Values],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """A statistic of one or more agents' strata with its percentile interval (section 4.1).

    Runs are resampled with replacement within each stratum and agent, as many as there are. Where each stratum has
    but one run nothing is known of their noise, and the ends are NaN.

    Args:
        samples: the strata of each agent that the statistic takes.
        statistic: a function of as many arguments.
        rng: draws the resamples.
        resamples: how many.
        level: of confidence.
    """
    value = float(statistic(*samples))
    if _noiseless(samples):
        return Interval(value, math.nan, math.nan)
    drawn = [_resampled(strata, rng, resamples) for strata in samples]
    low, high = np.quantile(statistic(*drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def compare(
    first: Sequence[Mapping[int, float]], second: Sequence[Mapping[int, float]], *, level: float = 0.95
) -> Comparison:
    """Whether the first is better than the second, by differences within equal seeds.

    The estimate is the mean over K strata of the mean difference over the n_k seeds that both have. Its
    standard error is √Σ s_k²/n_k / K; the degrees of freedom are Satterthwaite's (1946), so that strata may
    differ in their noise. A stratum with one pair has no known noise, and then nothing can be told.

    Args:
        first: score by seed, of each stratum.
        second: the same of the other, in the same order of strata.
        level: of confidence; for m comparisons read together give 1 − 0.05/m (Bonferroni).
    """
    differences = [
        np.array([one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())])
        for one, other in zip(first, second, strict=True)
    ]
    differences = [each for each in differences if len(each)]
    pairs = sum(map(len, differences))
    if not differences:
        return Comparison(Interval(math.nan, math.nan, math.nan), "cannot tell", 0, None)
    value = float(np.mean([each.mean() for each in differences]))
    if min(map(len, differences)) < 2:
        return Comparison(Interval(value, math.nan, math.nan), "cannot tell", pairs, None)
    variances = np.array([each.var(ddof=1) for each in differences])
    counts = np.array([len(each) for each in differences])
    half = _half_width(variances, counts, level)
    interval = Interval(value, value - half, value + half)
    answer: Answer = "better" if interval.low > 0 else "worse" if interval.high < 0 else "cannot tell"
    more = 0 if answer != "cannot tell" else _more_seeds(abs(value), variances, int(counts.min()), level)
    return Comparison(interval, answer, pairs, more)


def _above(scores: Float[np.ndarray, "*batch n"], thresholds: Float[np.ndarray, " t"]) -> Float[np.ndarray, "*batch t"]:
    """Fraction of scores beyond each threshold, counted by how many thresholds a score is beyond."""
    passed = np.searchsorted(thresholds, scores).reshape(-1, scores.shape[-1])
    width = len(thresholds) + 1
    places = passed + width * np.arange(len(passed))[:, None]
    counts = np.bincount(places.ravel(), minlength=width * len(passed)).reshape(-1, width)
    beyond = counts[:, :0:-1].cumsum(axis=1)[:, ::-1] / scores.shape[-1]
    return np.asarray(beyond.reshape(*scores.shape[:-1], len(thresholds)))


def _noiseless(samples: Sequence[Strata]) -> bool:
    """Whether no stratum has two runs, so that nothing is known of their noise."""
    return all(len(scores) == 1 for strata in samples for scores in _checked(strata))


def _resampled(strata: Strata, rng: np.random.Generator, resamples: int) -> Strata:
    """Each stratum's runs drawn with replacement, as many as there are."""
    return [scores[rng.integers(len(scores), size=(resamples, len(scores)))] for scores in _checked(strata)]


def _wins(a: Float[np.ndarray, "*batch n"], b: Float[np.ndarray, "*batch m"]) -> Values:
    """U/(n·m), from the sum of a's ranks among both, equal ones sharing theirs (Mann and Whitney 1947)."""
    n, m = a.shape[-1], b.shape[-1]
    ranks = stats.rankdata(np.concatenate([a, b], axis=-1), axis=-1)[..., :n]
    return np.asarray((ranks.sum(axis=-1) - n * (n + 1) / 2) / (n * m))


def _half_width(variances: Float[np.ndarray, " k"], counts: Float[np.ndarray, " k"], level: float) -> float:
    error, freedom = _error(variances, counts)
    return float(stats.t.ppf((1 + level) / 2, freedom)) * error if error > 0 else 0.0


def _error(variances: Float[np.ndarray, " k"], counts: Float[np.ndarray, " k"]) -> tuple[float, float]:
    """Standard error of the mean over strata, and its degrees of freedom."""
    parts = variances / counts
    if not parts.sum() > 0:
        return 0.0, math.inf
    freedom = parts.sum() ** 2 / (parts**2 / (counts - 1)).sum()
    return float(np.sqrt(parts.sum())) / len(parts), float(freedom)


def _more_seeds(difference: float, variances: Float[np.ndarray, " k"], there: int, level: float) -> int | None:
    """By the noncentral t: the least n with which a difference of this size is found with probability `POWER`."""
    if difference == 0:
        return None

    def power(count: int) -> float:
        error, freedom = _error(variances, np.full(len(variances), count))
        if error == 0:
            return 1.0
        return float(stats.nct.sf(stats.t.ppf((1 + level) / 2, freedom), freedom, difference / error))

    low, high = there, MOST_SEEDS
    if not power(high) >= POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high - there


def _means(strata: Strata) -> Values:
    return np.asarray([np.mean(scores, axis=-1) for scores in _checked(strata)])


def _checked(strata: Strata) -> Strata:
    """The strata, if each has runs.

    Raises:
        UsageError: there are none, one is empty, or one holds NaN.
    """
    if not len(strata):
        raise UsageError("there are no runs to take a statistic of")
    for place, scores in enumerate(strata):
        if not np.ndim(scores) or not np.size(scores):
            raise UsageError(f"stratum {place} has shape {np.shape(scores)}, expected (..., n) with one run or more")
        if np.isnan(scores).any():
            raise UsageError(f"stratum {place} holds NaN; leave runs without a score out")
    return strata
