"""Rebuilds the embedded world: `python -m benchmarks.world`. Same machine, same files."""

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

from benchmarks.world import checks, pretraining, reference
from textenv import models
from textenv.world.grammar import DEMONSTRATIONS, INTERNET


@dataclass(frozen=True)
class BuildConfig:
    """Rebuilds the embedded models, the reference's scored samples and what J* is looked up from."""

    start: Literal["models", "reference", "checks"] = "models"
    """Where to start: train the models anew, keep them and sample anew, or only check what is there."""
    threads: int = 2
    """Threads of the training; another number may change the last digits of the weights."""


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
        if config.start == "models":
            _train(bars)
        if config.start != "checks":
            _sample(bars)
    rng = np.random.default_rng(1)
    results = checks.model_checks(models.load("concierge-pretrained"), INTERNET, rng)
    results += checks.model_checks(models.load("concierge"), DEMONSTRATIONS, rng) + checks.task_checks()
    table = Table("figure", "value", "range", "")
    for check in results:
        table.add_row(
            check.name, f"{check.value:.4f}", f"{check.low:g} to {check.high:g}", "ok" if check.passed else "MISSED"
        )
    console.print(table)
    console.print(f"{time.perf_counter() - begin:.0f} s")
    return all(check.passed for check in results)


def _train(bars: Progress) -> None:
    """Pretraining and supervised training; each model is written when it is done."""
    config = pretraining.PretrainingConfig()
    tokenizer = pretraining.build_tokenizer()
    tasks: dict[str, TaskID] = {}

    def progress(phase: str, done: int, total: int, loss: float) -> None:
        task = tasks.setdefault(phase, bars.add_task(phase, total=total, note=""))
        bars.update(task, completed=done, note=f"loss {loss:.4f} nats a token")

    model = pretraining.build_model(config, tokenizer)
    for trained in pretraining.pretrain(model, tokenizer, config, progress):
        trained.save(models.CHECKPOINTS / models.SHIPPED[trained.name][0])


def _sample(bars: Progress) -> None:
    """The reference's scored samples, and samples of the optimal policy's kind."""
    reference.clear()
    tasks: dict[str, TaskID] = {}

    def report(phase: str, done: int, total: int) -> None:
        bars.update(tasks.setdefault(phase, bars.add_task(phase, total=total, note="")), completed=done)

    model = models.load("concierge")
    reference.write_scored_samples(model, torch.Generator().manual_seed(0), report)
    reference.write_optimum_samples(model, np.random.default_rng(1), report)


if __name__ == "__main__":
    sys.exit(0 if build(tyro.cli(BuildConfig)) else 1)
