"""Runs one cell in a run folder, as `textenv train` would, and turns what it leaves into rows."""

from __future__ import annotations

import json
import platform
import shutil
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from agents import load_agent
from agents.base import learns_from
from agents.listener import Listener
from agents.outcome import ReferencePolicy
from agents.rlhf import Loop, RLHFConfig, prepare
from agents.run_folder import RunFolder, version
from agents.setting import Setting
from benchmarks.suite.cells import Cell
from benchmarks.suite.reached import reached
from benchmarks.suite.rows import RUNS, Row, Rows
from textenv import models, processor, tasks
from textenv.errors import TextenvError, UsageError
from textenv.evaluation import evaluate
from textenv.files import atomic_folder
from textenv.rewards import GoldReward
from textenv.tasks.base import Split, Task, prompts_of

SAMPLES_KEPT = 4
"""Test prompts whose answers are kept."""
CHECKPOINT_SECONDS = 30.0
"""Seconds of learning that a kill loses at most."""
BEFORE_LEARNING = ("reference_samples.safetensors", "preferences.parquet", "raters.json", "reward_model",
                   "reward_model_calibration.json", "stages")  # fmt: skip
"""What the stages before learning leave in a run folder; that they are finished comes last."""
TRACEBACK_LINES = 12
"""Last entries of a traceback that a failed run's row keeps."""


def run_cell(cell: Cell, folder: Path, shared: Path | None, listener: Listener) -> Rows:
    """Runs a cell, or goes on with one that was cut off, and returns its rows.

    Args:
        cell: what to run.
        folder: its run folder, which stays for the caller to remove.
        shared: where cells leave for each other the stages before learning; None shares nothing.
        listener: told how it goes.

    Raises:
        TextenvError: the run failed.
    """
    start = time.perf_counter()
    torch.use_deterministic_algorithms(True)
    setting = prepare(RLHFConfig.from_json(cell.config))
    with _run_folder(cell, folder, setting) as run:
        loop = Loop(setting, run, listener, CHECKPOINT_SECONDS)
        if shared is not None and cell.shared_with is not None:
            _share(loop, shared / cell.shared_with)
        summary = loop.run()
        transfer = _transfer(cell, loop) if cell.transfer else []
        curve = _curve_rows(cell, run, summary)
        soon = reached(curve, summary.get("share"), summary["tokens"], _seconds_before_judging(summary))
        return {
            "runs": [_run_row(cell, summary, time.perf_counter() - start) | soon],
            "curves": curve,
            "samples": _sample_rows(cell, run),
            "transfer": transfer,
        }


def failed_rows(cell: Cell, error: str, seconds: float) -> Rows:
    """The row of a cell that failed."""
    return {"runs": [_common(cell) | {"status": "failed", "error": error, "seconds_cell": seconds}]}


def told(error: Exception) -> str:
    """What a row says of an error: our own messages as they are, others with the end of the traceback after them."""
    if isinstance(error, TextenvError):
        return str(error)
    said = traceback.format_exception_only(error)  # First, since a board has room for one line.
    return "".join([*said, *traceback.format_exception(error)[: -len(said)][-TRACEBACK_LINES:]]).strip()


def _run_folder(cell: Cell, path: Path, setting: Setting) -> RunFolder:
    """The cell's run folder as it was left, or a new one where it cannot be gone on with."""
    if (path / "config.json").exists():
        try:
            folder = RunFolder.open(path)
            folder.check_inputs(setting.inputs())
            return folder
        except UsageError:
            pass
    shutil.rmtree(path, ignore_errors=True)
    return RunFolder.create(path, cell.config, threads=torch.get_num_threads(), created=_now(), inputs=setting.inputs())


def share_stages(cell: Cell, folder: Path, shared: Path, listener: Listener) -> None:
    """Makes no more than the stages before a cell's learning, and leaves them for cells that share them.

    Args:
        cell: one that has something to share.
        folder: a run folder, which stays for the caller to remove.
        shared: where cells look for what they share.
        listener: told how it goes.

    Raises:
        TextenvError: they failed.
    """
    assert cell.shared_with is not None
    torch.use_deterministic_algorithms(True)
    setting = prepare(RLHFConfig.from_json(cell.config))
    with _run_folder(cell, folder, setting) as run:
        _share(Loop(setting, run, listener, CHECKPOINT_SECONDS), shared / cell.shared_with)


def _share(loop: Loop, shared: Path) -> None:
    """Takes the stages before learning from another cell, or makes them and leaves them for others."""
    path = loop.folder.path
    if not shared.exists():
        if loop.setting.learns_from == "preferences":
            loop.compare(loop.sample_reference())
        else:
            loop.learn_reward()
        if not loop.folder.finished("reinforce"):
            with atomic_folder(shared) as filled:
                _copy(path, filled)
    elif not (path / "stages").exists():
        _copy(shared, path)


def _copy(source: Path, target: Path) -> None:
    for place in (source / name for name in BEFORE_LEARNING):
        if place.is_dir():
            shutil.copytree(place, target / place.name, dirs_exist_ok=True)
        elif place.exists():
            shutil.copyfile(place, target / place.name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _common(cell: Cell) -> Row:
    """What the rows of done and failed cells have alike."""
    return cell.identity() | {
        "own_agent": cell.own_agent,
        "learns_from": learns_from(load_agent(cell.config["agent"])),
        "finished": _now(),
        "config": json.dumps(cell.config),
        "code": json.dumps(cell.code),
        "machine": platform.node(),
        "processor": processor.model_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "version": version(),
    }


def _run_row(cell: Cell, summary: Mapping[str, Any], seconds: float) -> Row:
    results = {name: value for name, value in summary.items() if name in RUNS}
    own = {"status": "done", "seconds_cell": seconds, "summary": json.dumps(summary)}
    return results | _common(cell) | own


def _curve_rows(cell: Cell, run: RunFolder, summary: Mapping[str, Any]) -> list[Row]:
    """An iteration's metrics are of the policy before its update, so its tokens are those before as well."""
    before = _seconds_before_judging(summary) - (summary.get("seconds_reinforce") or 0.0)
    start, best = summary.get("objective_reference"), summary.get("objective_optimum")
    rows, tokens = [], 0
    for iteration, metrics in enumerate(run.metrics()):
        row = cell.identity() | {
            "iteration": iteration,
            "tokens": tokens,
            "labels": summary.get("labels"),
            "seconds": before + metrics["seconds"],
            **{name: metrics.get(name) for name in ("gold", "reward", "kl", "response_length", "accuracy")},
        }
        if metrics.get("utility") is not None and metrics.get("kl") is not None:
            row["objective"] = metrics["utility"] - summary["evaluation_beta"] * metrics["kl"]
            if start is not None and best is not None and summary.get("share") is not None:
                row["share"] = (row["objective"] - start) / (best - start)
        rows.append(row)
        tokens = metrics["timesteps"]
    return rows


def _seconds_before_judging(summary: Mapping[str, Any]) -> float:
    return float(summary["seconds"] - (summary.get("seconds_evaluate") or 0.0))


def _sample_rows(cell: Cell, run: RunFolder) -> list[Row]:
    kept = run.read_rows("samples.parquet")[:SAMPLES_KEPT]
    return [cell.identity() | {"number": number, **row} for number, row in enumerate(kept)]


def _transfer(cell: Cell, loop: Loop) -> list[Row]:
    """Policy and reference on the learned task's test and held-out prompts, and on tasks of the same reference."""
    setting = loop.setting
    agent = loop.reinforce(setting.reward or GoldReward(setting.task))  # It has learned: this takes the checkpoint.
    tried: list[tuple[Task, Split]] = [(setting.task, "test"), (setting.task, "heldout")]
    tried += [(task, "test") for task in _relatives(setting.task)]
    return [cell.identity() | _tried(loop, agent, task, split) for task, split in tried]


def _relatives(task: Task) -> list[Task]:
    """The other tasks of ours that the same model of ours is the reference of."""
    others = [tasks.load(name) for name in tasks.TASKS if name != task.name and task.reference in models.SHIPPED]
    return [other for other in others if other.reference == task.reference]


def _tried(loop: Loop, agent: Any, task: Task, split: Split) -> Row:
    config, reference = loop.config, loop.setting.reference
    distinct = dict.fromkeys(map(tuple, task.fixed_prompts(split, config.test_prompts)))
    prompts = prompts_of(task, [list(prompt) for prompt in distinct])
    before, after = (
        evaluate(
            policy,
            task,
            reference,
            GoldReward(task),
            prompts=prompts,
            samples_per_prompt=config.test_samples,
            generator=loop.seeds.torch(f"transfer {task.name} {split}"),
        )
        for policy in (ReferencePolicy(reference), agent)
    )
    row: Row = {"on_task": task.name, "split": split, "kl": _finite(float(after.kl.mean())), "prompts": len(prompts)}
    if before.gold is not None and after.gold is not None:
        low, high = float(before.gold.score.mean()), float(after.gold.score.mean())
        objective = float((after.gold.utility - task.beta * after.kl - before.gold.utility).mean())
        row |= {"gold_before": low, "gold_after": high, "gain": high - low, "objective_gain": _finite(objective)}
    return row


def _finite(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
