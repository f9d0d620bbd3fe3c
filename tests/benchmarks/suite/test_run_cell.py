"""A cell leaves the same numbers as the run that it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agents.listener import Stopped
from benchmarks.suite.cells import Axes, Cell, cells_of
from benchmarks.suite.rows import CURVES, RUNS, TRANSFER, Rows
from benchmarks.suite.run_cell import failed_rows, run_cell, told
from textenv.errors import UsageError


class Listener:
    def __init__(self, stop_in: str = "") -> None:
        self.stages: list[str] = []
        self.stop_in = stop_in

    def progress(self, stage: str, done: int, total: int, numbers: object) -> None:
        self.stages += [stage] if self.stages[-1:] != [stage] else []

    def end(self, stage: str, seconds: float) -> None:
        pass

    def stopping(self) -> bool:
        return self.stages[-1:] == [self.stop_in]


@pytest.fixture(autouse=True)
def _as_before() -> object:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def numbers(rows: Rows) -> object:
    """All but what clocks, machines and memory gave."""
    told_by_clocks = {name for name in RUNS if "seconds" in name} | {"finished", "peak_rss_mb", "summary"}
    return {name: [{key: value for key, value in row.items() if key not in told_by_clocks} for row in several]
            for name, several in rows.items()}  # fmt: skip


def test_rows_have_what_the_run_came_to(tmp_path: Path, tiny_cells: Callable[..., list[Cell]]) -> None:
    (cell,) = tiny_cells("rloo", transfer=True)
    rows = run_cell(cell, tmp_path / "run", None, Listener())
    (run,) = rows["runs"]
    summary = json.loads(run["summary"])
    assert set(run) <= set(RUNS)
    assert run["status"] == "done"
    for name in ("share", "gold_after", "kl", "objective", "tokens", "seconds"):
        assert run[name] == summary[name] is not None
    assert json.loads(run["config"])["tokens"] == 500
    first, *rest = rows["curves"]
    assert set(first) <= set(CURVES)
    assert first["tokens"] == 0
    assert rest[-1]["tokens"] < run["tokens"]
    # J of an iteration lies on the line from J_ref to J* at its share.
    start, best = run["objective_reference"], run["objective_optimum"]
    assert first["share"] == pytest.approx((first["objective"] - start) / (best - start))
    assert len(rows["samples"]) == 4
    # Exact-v0's splits are the same four prompts, so what holds on one holds on the other up to noise.
    test, held_out = rows["transfer"]
    assert set(test) <= set(TRANSFER)
    assert (test["split"], held_out["split"], test["prompts"]) == ("test", "heldout", 4)
    assert test["gain"] == pytest.approx(test["gold_after"] - test["gold_before"])


@pytest.mark.slow
def test_a_policy_is_tried_on_the_tasks_of_its_reference(tmp_path: Path) -> None:
    sizes = {"tokens": 500, "test_prompts": 2, "test_samples": 2}
    (cell,) = cells_of(
        "generalisation", Axes(["rloo"], ["reviews"], ["gold"], 1, sizes), {"": {}}, transfer=True, labels_needed=False
    )[0]
    rows = run_cell(cell, tmp_path / "run", None, Listener())["transfer"]
    tried = [("reviews", "test"), ("reviews", "heldout"), ("summary", "test"), ("translate", "test"),
             ("classify", "test")]  # fmt: skip
    assert sorted((row["on_task"], row["split"]) for row in rows) == sorted(tried)
    for row in rows:
        assert row["task"] == "reviews"
        assert row["gain"] == pytest.approx(row["gold_after"] - row["gold_before"])
        assert row["kl"] >= 0


@pytest.mark.slow
def test_stages_before_learning_are_taken_over_and_give_the_same(
    tmp_path: Path, tiny_cells: Callable[..., list[Cell]]
) -> None:
    first, second = tiny_cells("rloo", "a2c", rater="oracle")
    alone = run_cell(second, tmp_path / "alone", None, Listener())
    run_cell(first, tmp_path / "first", tmp_path / "shared", Listener())
    listener = Listener()
    taken = run_cell(second, tmp_path / "second", tmp_path / "shared", listener)
    assert listener.stages == ["reinforce", "evaluate"]
    assert numbers(taken) == numbers(alone)
    # What it took over is part of what it cost.
    assert taken["runs"][0]["seconds_reward_model"] > 0


def test_a_cell_that_was_cut_off_goes_on(tmp_path: Path, tiny_cells: Callable[..., list[Cell]]) -> None:
    (cell,) = tiny_cells("rloo")
    with pytest.raises(Stopped):
        run_cell(cell, tmp_path / "run", None, Listener(stop_in="reinforce"))
    listener = Listener()
    rows = run_cell(cell, tmp_path / "run", None, listener)
    assert listener.stages[0] == "reinforce"
    assert numbers(rows) == numbers(run_cell(cell, tmp_path / "other", None, Listener()))


def test_a_failed_cell_says_why(tiny_cells: Callable[..., list[Cell]]) -> None:
    (cell,) = tiny_cells("rloo")
    (run,) = failed_rows(cell, "why", 1.5)["runs"]
    assert (run["status"], run["error"], run["seconds_cell"], run["agent"]) == ("failed", "why", 1.5, "rloo")
    assert told(UsageError("one sentence")) == "one sentence"
    with pytest.raises(KeyError) as caught:
        raise KeyError("odd")
    first, second, *rest = told(caught.value).splitlines()
    assert (first, second) == ("KeyError: 'odd'", "Traceback (most recent call last):")
    assert "test_run_cell.py" in rest[0]
