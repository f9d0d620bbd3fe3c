"""`textenv report`: writes a benchmark's or a run's report again, from what was measured; nothing is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from textenv.errors import UsageError


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Of what."""

    folder: tyro.conf.Positional[Path] = Path("runs/bench")
    """A benchmark's folder, with its rows, or a run's."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: the folder is neither, or what it holds cannot be used.
        DiskError: the disk is full.
    """
    console = console or Console()
    folder = tyro.cli(ReportConfig, prog="textenv report", description=__doc__, args=list(arguments)).folder
    if (folder / "bench.json").is_file():
        from benchmarks.suite.report import summary_table, write_report

        report = write_report(folder)
        console.print(summary_table(report))
        console.print(f"report {report.page}; tables {folder / 'tables'}", highlight=False, soft_wrap=True)
        return 0
    if (folder / "config.json").is_file():
        from benchmarks.report import write_report as write_run_report

        console.print(f"report {write_run_report(folder)}", highlight=False, soft_wrap=True)
        return 0
    raise UsageError(
        f"{folder} holds neither bench.json, as a folder of `textenv bench` does, nor config.json, as a run of "
        "`textenv train` does"
    )
