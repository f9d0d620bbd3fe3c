"""`textenv raters export`: writes a preferences file, such as a run's, as TRL's trainers read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

Format = Literal["paired", "unpaired"]


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What is written where."""

    file: tyro.conf.Positional[Path]
    """A preferences file, as a run folder has one."""
    out: Path
    """File to write, .jsonl or .parquet."""
    format: Format = "paired"
    """paired: prompt, chosen, rejected and margin; unpaired: prompt, completion and label."""
    model: str = "concierge"
    """Model, or task, whose tokens the file has."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: the model is not known, or --out has another ending.
        TextenvError: the file cannot be read, or there is nothing to write.
    """
    config = tyro.cli(ExportConfig, prog="textenv raters export", description=__doc__, args=list(arguments))
    console = console or Console()
    from textenv import models
    from textenv.preferences import Preferences
    from textenv.trl_formats import export_paired, export_unpaired

    model = models.load(config.model)
    preferences = Preferences.load(config.file, model.pad_id)
    write = export_paired if config.format == "paired" else export_unpaired
    count = write(preferences, config.out, model.tokenizer)
    console.print(f"{count:,} rows written to {config.out}", highlight=False, soft_wrap=True)
    return 0
