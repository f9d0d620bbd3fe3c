"""A worker's process outlives cells that fail, and is ended and replaced by those that break their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.suite.cells import Cell
from benchmarks.suite.worker import Limits, Outcome, Worker

Run = Callable[[Worker, str], Outcome]


@pytest.fixture
def run(tmp_path: Path, wrong_agents: str, tiny_cells: Callable[..., list[Cell]]) -> Iterator[Run]:
    workers: list[Worker] = []

    def to_the_end(worker: Worker, name: str) -> Outcome:
        workers.append(worker)
        (cell,) = tiny_cells(f"{wrong_agents}:{name}")
        worker.run(cell, tmp_path / name, None)
        outcome = None
        while outcome is None:
            outcome = worker.poll(0.2)
        assert outcome.cell == cell
        assert not (tmp_path / name).exists()
        return outcome

    yield to_the_end
    for worker in workers:
        worker.end()


@pytest.mark.slow
def test_what_a_cell_does_wrong_is_its_own_affair(run: Run) -> None:
    worker = Worker(Limits(300, 8000))
    failed = run(worker, "Fails")
    assert failed.error is not None
    assert "RuntimeError: the agent is at a loss" in failed.error
    (row,) = failed.rows["runs"]
    assert (row["status"], row["error"]) == ("failed", failed.error)
    died = run(worker, "Dies")
    assert died.error == "its process ended by signal SIGKILL; the system may have been out of memory"
    good = run(worker, "Good")
    assert good.error is None
    assert good.rows["runs"][0]["own_agent"] is True
    assert good.rows["runs"][0]["threads"] == 1


@pytest.mark.slow
def test_time_and_memory_have_limits(run: Run) -> None:
    slow = run(Worker(Limits(20, 8000)), "Sleeps")
    assert slow.error == "took longer than 20 seconds (--time-limit)"
    large = run(Worker(Limits(300, 2500)), "Hoards")
    assert large.error == "used more than 2500 MiB of memory (--memory-limit)"
