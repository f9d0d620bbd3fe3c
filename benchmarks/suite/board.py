"""What a person sees of a sweep: a live table on a terminal, a line a cell elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.progress import TITLES
from benchmarks.suite.cells import Cell
from benchmarks.suite.engines import Running
from benchmarks.suite.worker import Outcome
from textenv.errors import first_line


class Board:
    """Shows what is done, what runs, and when it is expected to end."""

    def __init__(self, console: Console, cells: Sequence[Cell], done_before: int, workers: int) -> None:
        """A board of cells that are to be run.

        Args:
            console: where to.
            cells: those to be run.
            done_before: how many of what was asked were there already.
            workers: how many run at a time.
        """
        self._console = console
        self._left = {cell.id: cell for cell in cells}
        self._total, self._before, self._workers = len(cells), done_before, workers
        self._running: Sequence[Running] = ()
        self._seconds_a_token: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._shares: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self._asked: dict[tuple[str, str, str], int] = defaultdict(int)
        for cell in cells:
            self._asked[_group(cell)] += 1
        self.failed: list[tuple[Cell, str]] = []
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def done(self) -> int:
        """How many of the cells have ended, failed ones among them."""
        return self._total - len(self._left)

    def running(self, running: Sequence[Running]) -> None:
        """Shows what runs now."""
        self._running = running
        if self._live is not None:
            self._live.update(self.render())

    def ended(self, outcome: Outcome) -> None:
        """Counts a cell that has ended."""
        cell, rows, error = outcome
        self._left.pop(cell.id)
        run = rows["runs"][0]
        if error is not None:
            self.failed.append((cell, error))
        else:
            self._seconds_a_token[_kind(cell)].append(run["seconds_cell"] / cell.config["tokens"])
            if run.get("share") is not None:
                self._shares[_group(cell)].append(run["share"])
        if self._live is None:
            share = run.get("share")
            came = f"failed: {first_line(Exception(error))}" if error is not None else \
                "share –" if share is None else f"share {share:.2f}"  # fmt: skip
            line = f"[{self.done}/{self._total}] {cell}: {came}, {run['seconds_cell']:.1f} s; {self._end()}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def seconds_left(self) -> float | None:
        """By what a token took in the cells of the same task, rater and variant, or else in all that have ended.

        None where none has.
        """
        every = [value for values in self._seconds_a_token.values() for value in values]
        if not every:
            return None
        means = {kind: float(np.mean(values)) for kind, values in self._seconds_a_token.items()}
        otherwise = float(np.mean(every))
        needed: float = sum(means.get(_kind(cell), otherwise) * cell.config["tokens"] for cell in self._left.values())
        return max(0.0, needed - sum(each.seconds for each in self._running)) / self._workers

    def render(self) -> Group:
        """The live table: levels against tasks and raters, then what runs."""
        table = Table(title=f"{self._before + self.done} of {self._before + self._total} runs; {self._end()}")
        columns = list(dict.fromkeys((task, rater) for _, task, rater in self._asked))
        table.add_column("share (runs)")
        for task, rater in columns:
            table.add_column(f"{task}\n{rater}", justify="right")
        for who in dict.fromkeys(who for who, _, _ in self._asked):
            table.add_row(who, *(self._entry((who, *column)) for column in columns))
        lines = [Text(_line(each), style="dim") for each in self._running]
        failures = [Text(f"failed: {cell}: {first_line(Exception(error))}", style="red")
                    for cell, error in self.failed[-3:]]  # fmt: skip
        return Group(table, *lines, *failures)

    def _entry(self, group: tuple[str, str, str]) -> str:
        shares, asked = self._shares.get(group, []), self._asked.get(group, 0)
        mean = f"{np.mean(shares):.2f}" if shares else "–"
        return f"{mean} ({len(shares)}/{asked})" if asked else ""

    def _end(self) -> str:
        left = self.seconds_left()
        if left is None:
            return "the end is not known yet"
        at = datetime.now().astimezone() + timedelta(seconds=left)
        return f"about {left / 60:.0f} min left, until {at:%H:%M}"


def _group(cell: Cell) -> tuple[str, str, str]:
    who = f"{cell.contestant} {cell.variant}".strip()
    return who, cell.config["task"], cell.rater


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.config["task"], cell.rater, cell.variant


def _line(running: Running) -> str:
    stage = f"  {TITLES.get(running.stage, running.stage)} {running.fraction:.0%}" if running.stage else ""
    return f"{running.cell}{stage}  {running.seconds:.0f} s"


def took(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
