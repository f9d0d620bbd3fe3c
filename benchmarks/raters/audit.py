"""`textenv raters audit`: who of the raters in a labels file is worth keeping, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textenv.errors import UsageError

if TYPE_CHECKING:
    from reward_models.audit import Audit

STYLES = {"drop": "bold red", "minority": "cyan", "watch": "yellow", "keep": "green"}

CALLED = {"drop": "to drop", "minority": "of another taste", "watch": "to watch", "keep": "to keep"}


@dataclasses.dataclass(frozen=True)
class AuditOptions:
    """Which labels are audited, and where the result goes."""

    file: tyro.conf.Positional[Path]
    """A labels file, as `textenv raters simulate` writes one."""
    out: Path | None = None
    """Where an HTML report is written as well; None writes none."""
    rows: int = 30
    """Most raters in the table here, those to drop first; the report has all of them."""
    seed: int = 0
    """Draws the bootstrap samples."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: a flag is out of its range.
        TextenvError: the file cannot be audited, or the report not written.
    """
    console = console or Console()
    from reward_models.audit import AuditConfig, audit

    flat = tyro.conf.arg(name="")
    parts: list[tuple[str, Any]] = [
        ("options", Annotated[AuditOptions, flat]),
        ("config", Annotated[AuditConfig, flat]),
    ]
    verb = dataclasses.make_dataclass("Audit", parts)
    parsed: Any = tyro.cli(verb, prog="textenv raters audit", description=__doc__, args=list(arguments))
    options: AuditOptions = parsed.options
    if options.rows < 0 or options.seed < 0:
        raise UsageError(f"--rows is {options.rows} and --seed {options.seed}; expected are numbers from 0 up")
    if options.out is not None and options.out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out is {options.out}; the report is HTML, so expected is a name such as report.html")

    import numpy as np

    from reward_models.labels import Labels

    labels = Labels.load(options.file)
    with console.status("auditing …"):
        result = audit(labels, parsed.config, np.random.default_rng(options.seed))
    show(result, console, options.rows)
    if options.out is not None:
        from benchmarks.raters.audit_report import write_audit_report

        write_audit_report(result, parsed.config, str(options.file), options.out)
        console.print(Text(f"report: {options.out}"), soft_wrap=True)
    return 0


def show(result: Audit, console: Console, rows: int) -> None:
    """Prints the pool in a few lines and a table of its raters."""
    from reward_models.audit import VERDICTS

    measures, alpha = result.measures, result.alpha
    counts = ", ".join(f"{result.count(verdict)} {CALLED[verdict]}" for verdict in VERDICTS)
    lines = [
        f"{result.answers.sum():,} answers of {len(result.verdicts)} raters to {result.items:,} items: {counts}",
        f"agreement of two raters {share(measures.agreement.pool)}, Krippendorff's alpha {alpha.value:.2f} "
        f"[{alpha.low:.2f}, {alpha.high:.2f}], Fleiss' kappa {share(result.kappa)}",
        f"for what is shown first {share(measures.first.pool)}, for the longer {share(measures.longer.pool)}, "
        f"{measures.pool_seconds:.1f} s a label",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True, highlight=False)
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("rater", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("answers", "right", "95 %", "agrees", "first"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    interval = result.accuracy.interval()
    for each in result.verdicts[:rows]:
        low, high = interval[each.place]
        table.add_row(
            Text(each.rater),
            Text(each.verdict, style=STYLES[each.verdict]),
            f"{result.answers[each.place]}",
            share(result.accuracy.mean[each.place]),
            f"{share(low)}–{share(high)}",
            share(measures.agreement.share[each.place]),
            share(measures.first.share[each.place]),
            Text("; ".join(each.evidence)),
        )
    console.print(table)
    if len(result.verdicts) > rows:
        console.print(Text(f"and {len(result.verdicts) - rows} more", style="dim"), highlight=False)


def share(value: float) -> str:
    """A share for people, a dash where it is not known."""
    return "–" if value != value else f"{value:.2f}"
