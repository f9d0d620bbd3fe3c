"""Statistics over runs, against numbers worked by hand from the definitions of Agarwal et al. 2021."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from benchmarks import statistics
from benchmarks.statistics import compare
from textenv.errors import UsageError

STRATA = [np.array([0.0, 0.2, 0.4, 0.6]), np.array([0.8, 1.0, 1.2, 1.4])]
"""Two tasks with four runs each: means 0.3 and 1.1."""


def test_aggregates_are_those_worked_by_hand() -> None:
    assert statistics.mean(STRATA) == pytest.approx(0.7)
    # The median is over tasks of the mean over runs, not over all runs.
    assert statistics.median([*STRATA, np.array([0.4])]) == pytest.approx(0.4)
    # Of the eight scores in order, two are cut off at either end: 0.4, 0.6, 0.8 and 1.0 are left.
    assert statistics.interquartile_mean(STRATA) == pytest.approx(0.7)
    skewed = [np.array([0.0, 0.1, 0.2, 10.0])]
    assert statistics.interquartile_mean(skewed) == pytest.approx(0.15)
    # Shortfalls from 1: 1, 0.8, 0.6, 0.4 and 0.2, 0, 0, 0; what lies beyond 1 counts as 1.
    assert statistics.optimality_gap(STRATA) == pytest.approx((0.7 + 0.05) / 2)
    assert statistics.optimality_gap(STRATA, target=0.5) == pytest.approx((0.5 + 0.3 + 0.1) / 4 / 2)


def test_aggregates_weigh_tasks_alike_whatever_their_runs() -> None:
    uneven = [np.array([0.0]), np.array([1.0, 1.0, 1.0])]
    assert statistics.mean(uneven) == 0.5
    assert statistics.optimality_gap(uneven) == 0.5
    assert statistics.performance_profile(uneven, np.array([0.5])) == pytest.approx([0.5])


def test_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    first, second = np.array([1.0, 2.0]), np.array([1.0, 1.5, 3.0])
    # Pairs that the first wins: (2, 1), (2, 1.5); a tie: (1, 1): 2.5 of 6.
    assert statistics.probability_of_improvement([first], [second]) == pytest.approx(2.5 / 6)
    both = statistics.probability_of_improvement([first, np.array([1.0])], [second, np.array([0.0])])
    assert both == pytest.approx((2.5 / 6 + 1) / 2)


@given(
    arrays(float, st.integers(1, 6), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    arrays(float, st.integers(1, 6), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
)
def test_probability_of_improvement_is_mann_whitneys_u(first: np.ndarray, second: np.ndarray) -> None:
    u = stats.mannwhitneyu(first, second, method="asymptotic").statistic
    p = statistics.probability_of_improvement([first], [second])
    assert p == pytest.approx(u / (len(first) * len(second)))
    assert p + statistics.probability_of_improvement([second], [first]) == pytest.approx(1)


def test_a_profile_is_the_fraction_above() -> None:
    profile = statistics.performance_profile(STRATA, np.array([-1.0, 0.2, 0.7, 1.4]))
    # Strictly above: of the first 4, 2, 0, 0 of four; of the second 4, 4, 4, 0.
    assert profile == pytest.approx([1.0, 0.75, 0.5, 0.0])


def test_the_band_of_a_profile_is_that_of_the_bootstrap_at_each_threshold() -> None:
    rng = np.random.default_rng(1)
    strata = [rng.normal(size=12), rng.normal(size=9)]
    thresholds = np.array([-0.5, 0.0, 0.8])
    low, high = statistics.profile_band(strata, thresholds, np.random.default_rng(0)) or ((), ())
    for place, threshold in enumerate(thresholds):

        def above(drawn: statistics.Strata, threshold: float = threshold) -> statistics.Values:
            return np.mean([np.mean(scores > threshold, axis=-1) for scores in drawn], axis=0)

        # The same generator draws the same resamples.
        interval = statistics.stratified_bootstrap([strata], above, np.random.default_rng(0))
        assert (low[place], high[place]) == pytest.approx((interval.low, interval.high))
    assert statistics.profile_band([np.array([1.0])], thresholds, rng) is None


def test_the_bootstrap_resamples_within_tasks() -> None:
    constant = [np.full(5, 0.0), np.full(3, 1.0)]
    for statistic in (statistics.mean, statistics.median, statistics.interquartile_mean, statistics.optimality_gap):
        interval = statistics.stratified_bootstrap([constant], statistic, np.random.default_rng(0))
        # Were runs drawn across tasks, the interval would have a width.
        assert interval.low == interval.value == interval.high == pytest.approx(float(statistic(constant)))


def test_the_bootstraps_interval_is_that_of_the_enumerated_distribution() -> None:
    # The mean of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    runs = [np.array([0.0, 1.0])]
    wide = statistics.stratified_bootstrap([runs], statistics.mean, np.random.default_rng(0), level=0.9)
    narrow = statistics.stratified_bootstrap([runs], statistics.mean, np.random.default_rng(0), level=0.4)
    assert wide == (0.5, 0.0, 1.0)
    assert narrow == (0.5, 0.5, 0.5)


def test_single_runs_tell_no_noise() -> None:
    interval = statistics.stratified_bootstrap(
        [[np.array([0.4]), np.array([0.6])]], statistics.mean, np.random.default_rng(0)
    )
    assert interval.value == pytest.approx(0.5)
    assert np.isnan([interval.low, interval.high]).all()


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        runs = [rng.normal(0.0, 1.0, 40), rng.normal(1.0, 2.0, 40)]
        interval = statistics.stratified_bootstrap([runs], statistics.mean, rng, resamples=400)
        covered += interval.low <= 0.5 <= interval.high
    assert 88 <= covered <= 99


def test_resamples_in_one_call_are_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(7, 5)), rng.normal(size=(7, 3))
    for statistic in (statistics.mean, statistics.median, statistics.interquartile_mean, statistics.optimality_gap):
        together = statistic([first, second])
        assert together == pytest.approx([float(statistic([a, b])) for a, b in zip(first, second, strict=True)])


def test_strata_without_runs_or_scores_are_refused() -> None:
    with pytest.raises(UsageError, match="no runs"):
        statistics.mean([])
    with pytest.raises(UsageError, match="stratum 1 has shape"):
        statistics.mean([np.ones(2), np.ones(0)])
    with pytest.raises(UsageError, match="stratum 0 holds NaN"):
        statistics.interquartile_mean([np.array([1.0, math.nan])])


def by_seed(*scores: float) -> dict[int, float]:
    return dict(enumerate(scores))


def test_one_stratum_is_students_paired_t_test() -> None:
    first, second = by_seed(0.5, 0.7, 0.9, 0.6), by_seed(0.4, 0.4, 0.7, 0.5)
    found = compare([first], [second])
    test = stats.ttest_rel(list(first.values()), list(second.values()))
    low, high = test.confidence_interval(0.95)
    assert found.difference == pytest.approx((0.175, low, high))
    assert (found.answer, found.pairs, found.more_seeds) == ("better", 4, 0)
    assert compare([second], [first]).answer == "worse"


def test_equal_noise_in_two_strata_halves_the_variance_and_adds_the_degrees_of_freedom() -> None:
    first = [by_seed(1.0, 2.0, 3.0), by_seed(11.0, 12.0, 13.0)]
    second = [by_seed(0.0, 0.0, 0.0), by_seed(10.0, 10.0, 10.0)]
    found = compare(first, second)
    # Differences 1, 2, 3 in both: s² = 1, so the standard error is √(2/3)/2, with 4 degrees of freedom.
    half = stats.t.ppf(0.975, 4) * math.sqrt(2 / 3) / 2
    assert found.difference == pytest.approx((2.0, 2.0 - half, 2.0 + half))
    assert found.pairs == 6


def test_only_seeds_that_both_have_are_compared() -> None:
    found = compare([{0: 1.0, 1: 2.0, 7: 100.0}], [{0: 0.5, 1: 1.0, 9: -100.0}])
    assert found.difference.value == pytest.approx(0.75)
    assert found.pairs == 2
    assert compare([{0: 1.0}], [{1: 1.0}]).pairs == 0


def test_one_pair_tells_no_noise_and_so_no_verdict() -> None:
    found = compare([by_seed(1.0, 2.0), by_seed(5.0)], [by_seed(0.0, 0.0), by_seed(0.0)])
    assert found.answer == "cannot tell"
    assert math.isnan(found.difference.low)
    assert found.more_seeds is None


def test_equal_runs_cannot_be_told_apart() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare([by_seed(0.5, 0.6)], [by_seed(0.5, 0.6)])
    assert found.difference == (0.0, 0.0, 0.0)
    assert (found.answer, found.more_seeds) == ("cannot tell", None)


def test_more_comparisons_want_wider_intervals() -> None:
    first, second = [by_seed(0.5, 0.7, 0.9)], [by_seed(0.4, 0.5, 0.6)]
    one, many = compare(first, second), compare(first, second, level=1 - 0.05 / 10)
    assert many.difference.low < one.difference.low
    assert many.difference.value == one.difference.value


def test_so_many_more_seeds_settle_it_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=4)
    difference = 0.5 + seen - seen.mean()  # Exactly 0.5 on average, with this noise.
    found = compare([by_seed(*difference)], [by_seed(0.0, 0.0, 0.0, 0.0)])
    assert found.answer == "cannot tell"
    assert found.more_seeds is not None
    deviation, count = difference.std(ddof=1), 4 + found.more_seeds

    def settled(runs: int) -> float:
        draws = rng.normal(0.5, deviation, size=(20_000, runs))
        means, errors = draws.mean(axis=1), draws.std(axis=1, ddof=1) / math.sqrt(runs)
        return float(np.mean(means > stats.t.ppf(0.975, runs - 1) * errors))

    assert settled(count) >= 0.79
    assert settled(count - 1) <= 0.81


def test_the_test_errs_as_seldom_as_it_says_with_three_seeds() -> None:
    rng = np.random.default_rng(2)
    told = [compare([by_seed(*rng.normal(size=3))] * 1, [by_seed(*rng.normal(size=3))]).answer for _ in range(400)]
    assert sum(answer != "cannot tell" for answer in told) / 400 == pytest.approx(0.05, abs=0.03)
