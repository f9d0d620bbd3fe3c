"""Rebuilds all that is embedded, the world's models and truths and Exact's reference: `python -m benchmarks.world`.

Same machine, same files.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.world import checks, exact, pretraining, reference
from textenv import models, tasks
from textenv.tasks.embedded import EmbeddedTask
from textenv.tasks.exact import CHECKPOINT as EXACT
from textenv.world import sentences
from textenv.world.grammar import DEMONSTRATIONS, INTERNET


@dataclass(frozen=True)
class BuildConfig:
    """Rebuilds the embedded models, the reference's scored samples and what J* is looked up from."""

    start: Literal["models", "world", "reference", "checks"] = "models"
    """Where to start: train all models anew, or the world model only; keep them and sample anew; or only check."""
    threads: int = 1
    """Threads; another number changes the last digits of the weights."""


def build(config: BuildConfig) -> bool:
    """Rebuilds from the asked step on, prints the measured figures and says whether all are in range."""
    torch.set_num_threads(config.threads)
    console = Console()
    begin = time.perf_counter()
    columns = (
        *Progress.get_default_columns()[:3],
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        report = _Bars(bars)
        if config.start == "models":
            _train(report)
        if config.start in ("models", "world"):
            _train_world(report)
        if config.start != "checks":
            _sample(report)
    rng = np.random.default_rng(1)
    results = checks.model_checks(models.load("concierge-pretrained"), INTERNET, rng)
    results += checks.model_checks(models.load("concierge"), DEMONSTRATIONS, rng) + checks.concierge_checks()
    embedded = embedded_tasks()
    results += checks.world_checks(models.load("world"), embedded, rng)
    for task in embedded:
        results += checks.task_checks(task)
    table = Table("figure", "value", "range", "")
    for check in results:
        table.add_row(
            check.name, f"{check.value:.4f}", f"{check.low:g} to {check.high:g}", "ok" if check.passed else "MISSED"
        )
    console.print(table)
    console.print(f"{time.perf_counter() - begin:.0f} s")
    return all(check.passed for check in results)


class _Bars:
    """Shows each phase that is reported as a bar."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int, loss: float | None = None) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, note="")
        note = "" if loss is None else f"loss {loss:.4f} nats a token"
        self._bars.update(self._tasks[phase], completed=done, note=note)


def _train(report: _Bars) -> None:
    """Exact's reference, then Concierge's models; each model is written when it is done."""
    exact.build(EXACT, report)
    config = pretraining.PretrainingConfig()
    tokenizer = pretraining.build_tokenizer(sentences.words())
    model = pretraining.build_model(config, tokenizer)
    for trained in pretraining.pretrain(model, tokenizer, config, report):
        trained.save(models.CHECKPOINTS / models.SHIPPED[trained.name][0])


def _train_world(report: _Bars) -> None:
    """The model of all tasks, from Concierge's pretrained one."""
    config = pretraining.PretrainingConfig()
    trained = pretraining.train_world(models.load("concierge-pretrained"), config, report)
    trained.save(models.CHECKPOINTS / models.SHIPPED[trained.name][0])


def _sample(report: _Bars) -> None:
    """The scored samples of each task's reference, and samples of the optimal policy's kind."""
    for task in embedded_tasks():
        reference.clear(task)
        model = models.load(task.reference)
        reference.write_scored_samples(task, model, torch.Generator().manual_seed(0), report)
        reference.write_optimum_samples(task, model, np.random.default_rng(1), report)


def embedded_tasks() -> list[EmbeddedTask]:
    """The tasks whose truth is shipped as samples."""
    made = [tasks.load(name) for name in tasks.TASKS]
    return [task for task in made if isinstance(task, EmbeddedTask)]


if __name__ == "__main__":
    sys.exit(0 if build(tyro.cli(BuildConfig)) else 1)
