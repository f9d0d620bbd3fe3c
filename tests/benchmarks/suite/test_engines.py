"""Processes on this machine share what their cells have alike."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.suite.cells import Cell
from benchmarks.suite.engines import LocalEngine, Running
from benchmarks.suite.results_folder import ResultsFolder
from benchmarks.suite.worker import Limits

needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


@pytest.mark.slow
@needs_two_cores
def test_stages_before_learning_are_made_once_by_two_workers(out: Path, tiny_cells: Callable[..., list[Cell]]) -> None:
    cells = tiny_cells("rloo", "a2c", "grpo", rater="oracle", seeds=2)
    # Neighbours share, so that the second worker has to look further for its first one.
    cells.sort(key=lambda cell: cell.config["seed"])
    seen: list[int] = []

    def watch(running: Sequence[Running]) -> None:
        seen.append(len(running))

    with ResultsFolder.open(out) as folder:
        engine = LocalEngine(folder, Limits(300, 8000), workers=2)
        outcomes = list(engine.outcomes(cells, watch))
    assert {outcome.cell.id for outcome in outcomes} == {cell.id for cell in cells}
    assert [outcome.error for outcome in outcomes] == [None] * 6
    made = defaultdict(set)
    for outcome in outcomes:
        (run,) = outcome.rows["runs"]
        made[outcome.cell.shared_with].add((run["seconds_compare"], run["seconds_reward_model"]))
    # Clocks never tell the same twice, so equal seconds are those of one making.
    assert [len(times) for times in made.values()] == [1, 1]
    assert max(seen) == 2
