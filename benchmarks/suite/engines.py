"""Who runs the cells: processes on this machine, or a Ray cluster. Both give the same rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import wait
from typing import NamedTuple, Protocol

from benchmarks.suite.cells import Cell
from benchmarks.suite.results_folder import ResultsFolder
from benchmarks.suite.worker import Limits, Outcome, Worker
from textenv.errors import UsageError

SECONDS_BETWEEN_LOOKS = 0.5
"""How often limits are checked and the table is drawn."""


class Running(NamedTuple):
    """A cell that is being run."""

    cell: Cell
    stage: str
    """Empty where it is not known."""
    fraction: float
    """Of the stage that is done."""
    seconds: float


Watch = Callable[[Sequence[Running]], object]
"""Told again and again what is running."""


class Engine(Protocol):
    """Runs cells side by side."""

    workers: int
    """How many at a time."""

    def outcomes(self, cells: Sequence[Cell], watch: Watch) -> Generator[Outcome, None, None]:
        """What comes of each cell, in the order in which they end; closing the generator stops all that run."""
        ...


class LocalEngine:
    """Processes on this machine, one torch thread each.

    Raises:
        UsageError: more processes are asked for than there are cores, which would make all of them slower.
    """

    def __init__(self, folder: ResultsFolder, limits: Limits, workers: int | None) -> None:
        cores = len(os.sched_getaffinity(0))
        self.workers = cores if workers is None else workers
        if not 1 <= self.workers <= cores:
            raise UsageError(f"--workers is {self.workers}, expected 1 to {cores}, the cores that may be used here")
        self._folder, self._limits = folder, limits

    def outcomes(self, cells: Sequence[Cell], watch: Watch) -> Generator[Outcome, None, None]:
        """What comes of each cell; see `Engine`."""
        waiting = list(cells)
        workers = [Worker(self._limits) for _ in range(min(self.workers, len(cells)))]

        def begin(worker: Worker) -> None:
            """Gives out the first cell whose stages before learning nobody is making: they are made once, then taken.

            Where there is none the worker waits, since to make them itself would take it no less time.
            """
            running = {other.cell.shared_with for other in workers if other.cell is not None}
            making = {name for name in running if name is not None and not (self._folder.shared / name).exists()}
            place = next((place for place, cell in enumerate(waiting) if cell.shared_with not in making), None)
            if place is not None:
                cell = waiting.pop(place)
                worker.run(cell, self._folder.work(cell.id), self._folder.shared)

        try:
            while True:
                for worker in workers:
                    if worker.cell is None:
                        begin(worker)
                busy = [worker for worker in workers if worker.cell is not None]
                if not busy:
                    break
                watch([Running(w.cell, w.stage, w.fraction, w.seconds) for w in busy if w.cell is not None])
                wait([worker.connection for worker in busy], SECONDS_BETWEEN_LOOKS)
                for worker in busy:
                    outcome = worker.poll()
                    if outcome is not None:
                        begin(worker)  # Before the rows are written, for which its core need not wait.
                        yield outcome
        finally:
            for worker in workers:
                worker.end()
