"""How fast textenv learns beside other libraries: `python -m benchmarks.speed`.

Each contestant runs in a process of its own, on the same model with the same sizes; they take turns
iteration by iteration, and the medians are told with their quartiles. A contestant whose library is not
installed is named with the command that installs it, and the others go on. Ctrl-C keeps what is done.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.speed import race as running
from benchmarks.speed import rows as parquet
from benchmarks.speed.pictures import draw
from benchmarks.speed.plan import SECTIONS, Race, Section, races
from benchmarks.speed.race import Result
from benchmarks.speed.summary import curves, summarise
from textenv.errors import TextenvError, UsageError, unknown_name
from textenv.files import write_atomically
from textenv.precision import native

INTERRUPTED = 130
WIDTH = 150
"""Columns of the tables where they are not shown on a terminal."""


@dataclass(frozen=True)
class SpeedConfig:
    """What is measured, and how often."""

    only: str = ",".join(SECTIONS)
    """Sections, with commas between them."""
    rounds: int = 5
    """Iterations that are measured of each contestant, after one to warm up."""
    threads: tuple[int, ...] = (1, 2)
    """Threads of the races between libraries, one race each; all else takes the first number."""
    quick: bool = False
    """Two rounds, one thread and the small sizes only."""
    smollm2: bool = False
    """Decode, and learn by PPO, with SmolLM2-135M too, 32 responses at a time."""
    trl_ppo: Path | None = None
    """Folder with trl 1.12.0, the last version that has PPO."""
    out: Path = Path("runs/speed")
    """Folder for rows.parquet, summary.json and speed.png."""

    def sections(self) -> list[Section]:
        """Those that are asked for, in the order of the measurement.

        Raises:
            UsageError: one is not known, or a number is out of its range.
        """
        named = self.only.split(",")
        for name in named:
            if name not in SECTIONS:
                raise unknown_name("section", name, SECTIONS)
        if self.rounds < 1:
            raise UsageError(f"--rounds is {self.rounds}, expected 1 or more")
        if not self.threads or min(self.threads) < 1:
            raise UsageError(f"--threads is {self.threads}, expected numbers from 1 up")
        if self.trl_ppo is not None and not (self.trl_ppo / "trl").is_dir():
            raise UsageError(
                f"--trl-ppo is {self.trl_ppo}, where there is no package trl; make it with: "
                f"pip install --no-deps --target {self.trl_ppo} trl==1.12.0"
            )
        return [section for section in SECTIONS if section in named]


def measure(config: SpeedConfig, console: Console) -> tuple[list[parquet.Row], int]:
    """Runs the races, writing the rows after each; the rows, and the exit code: 1 where a contestant failed."""
    planned = races(
        config.sections(),
        config.threads[:1] if config.quick else config.threads,
        min(2, config.rounds) if config.quick else config.rounds,
        quick=config.quick,
        smollm2=config.smollm2,
        bf16=native() == "bfloat16",
    )
    rows: list[parquet.Row] = []
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    code = 0
    with bar:
        task = bar.add_task("", total=len(planned))
        for race in planned:

            def told(name: str, number: int, race: Race = race) -> None:
                what = f"round {number}" if number else "getting ready"
                bar.update(task, description=f"{race.section}, {race.threads} threads: {name}, {what}")

            results = [Result(start) for start in race.starts]
            try:
                running.run(race, results, config.trl_ppo, told)
            except KeyboardInterrupt:
                return rows + parquet.rows_of(race, results), INTERRUPTED
            finally:
                parquet.write(config.out / "rows.parquet", rows + parquet.rows_of(race, results))
            rows += parquet.rows_of(race, results)
            for result in results:
                _complain(result, console)
            code = max(code, int(any(result.failed is not None for result in results)))
            bar.advance(task)
            if not console.is_terminal:
                console.print(f"{race.section}, {race.threads} threads: done", highlight=False)
    return rows, code


def _complain(result: Result, console: Console) -> None:
    contestant = result.start.contestant
    if result.missing is not None:
        install = f"; install it with: {contestant.install}" if contestant.install else ""
        console.print(f"{contestant.name}: not installed ({result.missing}){install}", highlight=False, markup=False)
    if result.failed is not None:
        console.print(f"{contestant.name}: failed: {result.failed}", style="red", highlight=False, markup=False)


def tables(summary: dict[str, Any]) -> list[Table]:
    """What people read of a summary."""
    found = []
    if summary["races"]:
        table = Table(title="Tokens a second: medians, quartiles in brackets")
        for name in ("", "contestant"):
            table.add_column(name)
        for name in ("threads", "a CPU second", "a second", "times as fast", "by operations", "steps", "peak MiB"):
            table.add_column(name, justify="right")
        for entry in summary["races"]:
            ratio = entry["times"]
            table.add_row(
                f"{entry['section']} x {entry['batch']}",
                entry["contestant"],
                str(entry["threads"]),
                _spread(entry["tokens_per_cpu_second"]),
                _spread(entry["tokens_per_second"]),
                "" if ratio is None else f"{ratio['median']:.2f} ({ratio['than']})",
                "" if ratio is None or ratio["by_operations"] is None else f"{ratio['by_operations']:.2f}",
                ", ".join(map(str, entry["steps"])),
                "" if entry["peak_mib"] is None else f"{entry['peak_mib']:,.0f}",
            )
        found.append(table)
    plain = {name: summary[name] for name in ("shares", "roofline", "optimum")}
    plain["slopes"] = [summary["slopes"]] if summary["slopes"] else []
    return found + [_plain(name, entries) for name, entries in plain.items() if entries]


def _spread(value: dict[str, float]) -> str:
    return f"{value['median']:,.0f} [{value['low']:,.0f}, {value['high']:,.0f}]"


def _plain(title: str, entries: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for name in entries[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for entry in entries:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in entry.values()))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes, and returns the exit code."""
    config = tyro.cli(SpeedConfig, prog="python -m benchmarks.speed", description=__doc__, args=arguments)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    try:
        rows, code = measure(config, console)
        summary = summarise(rows)
        text = json.dumps(summary, indent=1)
        write_atomically(config.out / "summary.json", lambda file: file.write_text(text, encoding="utf-8"))
        drawn = draw(config.out / "speed.png", summary, curves(rows))
    except TextenvError as error:
        print(f"speed: {error}", file=sys.stderr)
        return error.exit_code
    for table in tables(summary):
        console.print(table)
    files = "rows.parquet, summary.json" + (" and speed.png" if drawn else "")
    console.print(f"{files} are in {config.out}", highlight=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    # A polite kill keeps the rows too, and so does Ctrl-C where a shell had it ignored, as in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
