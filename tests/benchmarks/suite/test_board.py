"""What a person sees while a sweep runs."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from benchmarks.suite.board import Board, took
from benchmarks.suite.cells import Axes, Cell, cells_of
from benchmarks.suite.engines import Running
from benchmarks.suite.worker import Outcome


def done(cell: Cell, seconds: float, share: float | None = 0.5) -> Outcome:
    return Outcome(cell, {"runs": [{"seconds_cell": seconds, "share": share}]}, None)


def test_the_end_is_expected_by_runs_of_the_same_task_and_rater(tiny_cells: Callable[..., list[Cell]]) -> None:
    cheap = tiny_cells("ppo", seeds=3)
    dear = tiny_cells("ppo", rater="oracle", seeds=3)
    board = Board(Console(file=io.StringIO()), [*cheap, *dear], 2, workers=2)
    assert board.seconds_left() is None
    board.ended(done(cheap[0], 10.0))
    # All that is known are 10 seconds a run: five are left, on two workers.
    assert board.seconds_left() == pytest.approx(25)
    board.ended(done(dear[0], 100.0))
    assert board.seconds_left() == pytest.approx((2 * 10 + 2 * 100) / 2)
    board.running([Running(dear[1], "evaluate", 0.5, 40.0)])
    assert board.seconds_left() == pytest.approx((2 * 10 + 2 * 100 - 40) / 2)


def test_the_end_is_expected_by_what_a_token_took_in_the_same_variant() -> None:
    axes = Axes(["ppo"], ["exact"], ["gold"], 2, {})
    lengths = {"short": {"tokens": 1000}, "long": {"tokens": 4000}}
    cells = cells_of("over_optimisation", axes, lengths, transfer=False, labels_needed=False)[0]
    board = Board(Console(file=io.StringIO()), cells, 0, workers=1)
    board.ended(done(cells[0], 10.0))
    # All that is known is 0.01 seconds a token: a short and two long ones are left.
    assert board.seconds_left() == pytest.approx(10 + 2 * 40)
    board.ended(done(cells[2], 20.0))
    assert board.seconds_left() == pytest.approx(10 + 20)


def test_the_table_has_shares_counts_failures_and_what_runs(tiny_cells: Callable[..., list[Cell]]) -> None:
    cells = tiny_cells("ppo", "a2c", seeds=2)
    text = io.StringIO()
    board = Board(Console(file=text, width=160), cells, 1, workers=1)
    board.ended(done(cells[0], 1.0, share=0.25))
    board.ended(done(cells[1], 1.0, share=0.75))
    board.ended(Outcome(cells[2], {"runs": [{"seconds_cell": 1.0}]}, "it broke\nhere"))
    assert "[3/4] leaderboard · a2c · exact · gold · seed 0: failed: it broke, 1.0 s" in text.getvalue()
    board.running([Running(cells[3], "evaluate", 0.5, 7.0)])
    shown = io.StringIO()
    Console(file=shown, width=160).print(board.render())
    assert "4 of 5 runs" in shown.getvalue()
    assert "0.50 (2/2)" in shown.getvalue()
    assert "a2c · exact · gold · seed 1  evaluation 50%  7 s" in shown.getvalue()
    assert "failed: leaderboard · a2c · exact · gold · seed 0: it broke" in shown.getvalue()
    assert [error for _, error in board.failed] == ["it broke\nhere"]


def test_durations_are_in_words() -> None:
    assert (took(59.6), took(600)) == ("60 s", "10.0 min")
