"""How soon a share was reached, on curves worked out by hand."""

from __future__ import annotations

from benchmarks.suite.reached import reached
from benchmarks.suite.rows import Row

NEVER = {"tokens_to_50": None, "seconds_to_50": None, "tokens_to_80": None, "seconds_to_80": None}


def curve(*shares: float | None) -> list[Row]:
    return [{"tokens": 100 * i, "seconds": 2.0 + i, "share": share} for i, share in enumerate(shares)]


def test_a_level_is_reached_where_the_mean_of_its_neighbours_is() -> None:
    # Five iterations are averaged: 0.2, 0.3, 0.4, 0.56, 0.64, 0.84 … The jump at the second is no arrival.
    rows = curve(0.0, 0.6, 0.0, 0.6, 0.8, 0.8, 1.0, 1.0)
    assert reached(rows, 0.9, 800, 11.0) == {
        "tokens_to_50": 300, "seconds_to_50": 5.0, "tokens_to_80": 500, "seconds_to_80": 7.0}  # fmt: skip


def test_what_is_never_reached_is_blank() -> None:
    assert reached(curve(0.0, 0.1, 0.2, 0.3), 0.4, 400, 6.0) == NEVER
    assert reached(curve(0.0, 0.1), None, 400, 6.0) == NEVER


def test_the_end_counts_where_the_way_is_not_known_or_stops_short() -> None:
    end = {"tokens_to_50": 400, "seconds_to_50": 6.0, "tokens_to_80": None, "seconds_to_80": None}
    assert reached(curve(None, None), 0.7, 400, 6.0) == end
    assert reached(curve(0.1, 0.2, 0.3, 0.4), 0.7, 400, 6.0) == end
