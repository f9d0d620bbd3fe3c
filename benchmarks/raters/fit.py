"""`textenv raters fit`: estimates how raters judge from a labels file, and writes them as a population."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textenv.errors import UsageError

if TYPE_CHECKING:
    from reward_models.rater_estimation import Estimate, PoolEstimate


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Which labels are fitted, and where the raters go."""

    file: tyro.conf.Positional[Path]
    """A labels file, as `textenv raters simulate` writes one; several raters must have answered the same items."""
    out: Path | None = None
    """Where the population is written (JSON), for `--rater`; None is the labels file's name with -raters.json."""
    known_utilities: bool = False
    """Take the true utilities of the file for known, so that a bias to length is told from longer being better."""
    rows: int = 30
    """Most raters in the table here, the least rational first; the population has all of them."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: a flag is out of its range.
        TextenvError: the file cannot be fitted, or the population not written.
    """
    console = console or Console()
    options = tyro.cli(FitOptions, prog="textenv raters fit", description=__doc__, args=list(arguments))
    out = options.out or options.file.with_name(f"{options.file.stem}-raters.json")
    if options.rows < 0:
        raise UsageError(f"--rows is {options.rows}; expected is a number from 0 up")
    if out.suffix.lower() != ".json":
        raise UsageError(f"--out is {out}; the population is JSON, so expected is a name such as raters.json")

    from reward_models.labels import Labels
    from reward_models.rater_estimation import estimate_raters, population_description
    from reward_models.rater_regression import regress_raters
    from textenv.files import write_atomically

    labels = Labels.load(options.file)
    with console.status("fitting …"):
        estimate = (regress_raters if options.known_utilities else estimate_raters)(labels)
    text = json.dumps(population_description(estimate, out.stem), indent=2, ensure_ascii=False)
    write_atomically(out, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    show(estimate, console, options.rows)
    console.print(Text(f"population: {out} (textenv train --rater {out})"), soft_wrap=True, highlight=False)
    return 0


def show(estimate: PoolEstimate, console: Console, rows: int) -> None:
    """Prints the pool's biases and a table of its raters."""
    console.print(
        Text(f"{estimate.labels:,} answers of {len(estimate.raters)} raters to {estimate.items:,} items"),
        highlight=False,
    )
    for name, bias in (("for what is shown first", estimate.position), ("for a token more", estimate.length)):
        told = math.isfinite(bias.error)
        line = f"log-odds {name} {_with_interval(bias, 4 if bias is estimate.length else 2)}" if told else (
            f"log-odds {name}: unknown, since lengths never differ"
        )  # fmt: skip
        console.print(Text(line), soft_wrap=True, highlight=False)
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("rater", no_wrap=True)
    for column in ("rationality", "error", "95 %"):
        table.add_column(column, justify="right", no_wrap=True)
    by_rationality = sorted(zip(estimate.raters, estimate.rationality, strict=True), key=lambda rater: rater[1].value)
    for rater, rationality in by_rationality[:rows]:
        low, high = rationality.interval()
        cells = f"{rationality.value:.2f}", f"{rationality.error:.2f}", f"{low:.2f} to {high:.2f}"
        table.add_row(Text(str(rater)), *cells)
    console.print(table)
    if len(by_rationality) > rows:
        console.print(Text(f"and {len(by_rationality) - rows} more", style="dim"), highlight=False)


def _with_interval(estimate: Estimate, digits: int) -> str:
    low, high = estimate.interval()
    return f"{estimate.value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
