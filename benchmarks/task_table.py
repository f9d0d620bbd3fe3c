"""What PPO reaches on each task with the truth as its reward: `python -m benchmarks.task_table`.

Runs `textenv train --reward gold` on every task with several seeds, and prints the README's table. Runs
that a folder holds already are not made again, so that it can be stopped and gone on with.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import train
from textenv.errors import TextenvError
from textenv.tasks import TASKS


@dataclass(frozen=True)
class TaskTableConfig:
    """Which runs the table is made of."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks by name."""
    seeds: int = 3
    """Runs on each task, with the seeds 0, 1, …"""
    threads: int | None = None
    """Processor threads of a run; None is as many of the cores as the model's products keep busy."""
    out: Path = Path("runs/task-table")
    """Folder of the runs."""


def rows(config: TaskTableConfig) -> list[list[str]]:
    """Makes the runs that are missing; one row of the table a task."""
    return [_row(task, [_summary(config, task, seed) for seed in range(config.seeds)]) for task in config.tasks]


def _summary(config: TaskTableConfig, task: str, seed: int) -> dict[str, Any]:
    folder = config.out / f"{task}-seed{seed}"
    if not (folder / "summary.json").is_file():
        if folder.exists():
            words = ["--resume", str(folder)]
        else:
            words = ["--task", task, "--reward", "gold", "--seed", str(seed), "--out", str(folder)]
            words += [] if config.threads is None else ["--threads", str(config.threads)]
        code = train.main(words)
        if code != 0:
            sys.exit(code)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def _row(task: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    shares = [run["share"] for run in runs]
    first = runs[0]
    return [
        f"`{task}`",
        f"{statistics.fmean(run['gold_before'] for run in runs):.2f}",
        f"{statistics.fmean(run['gold_best_of_n'] for run in runs):.2f}",
        f"{statistics.fmean(run['gold_after'] for run in runs):.2f}",
        f"{statistics.fmean(run['kl'] for run in runs):.1f}",
        f"{first['evaluation_beta']:g}",
        f"{first['objective_optimum']:.3f} ± {first['optimum_stderr']:.4f}",
        ", ".join(f"{share:.2f}" for share in shares),
        f"{statistics.median(shares):.2f}",
    ]


COLUMNS = ("task", "gold before", "best of 32", "gold after", "KL, nats", "β", "J*", "shares", "median")


def markdown(table: Sequence[Sequence[str]]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code."""
    config = tyro.cli(TaskTableConfig, prog="python -m benchmarks.task_table", description=__doc__, args=arguments)
    try:
        print(markdown(rows(config)))
    except TextenvError as error:
        print(f"task_table: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
