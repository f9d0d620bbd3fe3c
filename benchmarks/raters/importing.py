"""`textenv raters import`: reads comparisons in TRL's formats and writes them as a preferences file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from benchmarks.raters.exporting import Format


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What is read and what is written."""

    file: tyro.conf.Positional[Path]
    """JSON lines or Parquet, with the columns of the format."""
    out: Path
    """Preferences file to write, Parquet, which `textenv train --preferences` learns from."""
    format: Format = "paired"
    """paired: prompt, chosen, rejected and maybe margin; unpaired: prompt, completion and label, of which every
    completion with true is compared with every one with false to the same prompt."""
    model: str = "concierge"
    """Model, or task, whose tokens the texts become."""
    rater: str = "unknown"
    """Kept with every comparison."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: the model is not known, or a file has another ending.
        TextenvError: the file cannot be read, or nothing in it can be compared.
    """
    config = tyro.cli(ImportConfig, prog="textenv raters import", description=__doc__, args=list(arguments))
    console = console or Console()
    from textenv import models
    from textenv.errors import UsageError
    from textenv.trl_formats import import_paired, import_unpaired, paired_up

    if config.out.suffix != ".parquet":
        raise UsageError(f"--out is {config.out}; a preferences file is Parquet, so expected is a name with .parquet")
    tokenizer = models.load(config.model).tokenizer
    if config.format == "paired":
        preferences = import_paired(config.file, tokenizer, config.rater)
    else:
        preferences = paired_up(*import_unpaired(config.file, tokenizer), config.rater)
    preferences.save(config.out, tokenizer)
    console.print(f"{len(preferences):,} comparisons written to {config.out}", highlight=False, soft_wrap=True)
    return 0
