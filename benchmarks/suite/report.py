"""The report of a benchmark: one HTML file that needs no network and no script, and its tables as files.

Everything comes from the rows alone; nothing is run again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich.console
import rich.table
from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmarks import experiments, plots
from benchmarks.experiments import Verdict
from benchmarks.statistics import Interval
from benchmarks.suite import figures, tables
from benchmarks.suite import frames as framing
from benchmarks.suite.figures import Group
from benchmarks.suite.frames import FACTORS, Frames
from benchmarks.suite.plots import Style, standings, styles
from benchmarks.suite.results_folder import read_description
from benchmarks.suite.rows import Row
from benchmarks.suite.tables import Entry, Table, parts, shown
from textenv.files import write_atomically

SAMPLES_SHOWN = 2
"""Test prompts of each task whose answers are shown."""
PICTURE_DPI = 150
"""Of the leaderboard's picture."""
TASKS_SHOWN = 6
"""Tasks whose answers are shown."""


class Answers(NamedTuple):
    """What each level answers to one prompt."""

    task: str
    prompt: str
    before: str
    gold_before: float | None
    answers: Sequence[tuple[str, str, float | None]]
    """Level, answer, gold score."""


@dataclass(frozen=True)
class Section:
    """All that the page says of one experiment."""

    name: str
    question: str
    metric: str
    factor: str
    commands: str
    """Those that made its runs, a line each."""
    runs: int
    failed: Sequence[Row]
    seeds: int
    machines: Sequence[str]
    hours: float
    """Of one thread, all runs together."""
    verdicts: Sequence[Verdict]
    leaderboard: Table
    comparisons: Table
    each_task: Table
    heat_maps: Sequence[Table]
    transfer: Table | None
    legend: Sequence[tuple[str, Style]]
    groups: Sequence[Group]
    answers: Sequence[Answers]
    unscored: int
    """Runs that are done but have not got the metric."""
    outdated: int
    """Runs that code of one's own was changed after."""


class Report(NamedTuple):
    """What was written."""

    page: Path
    leaderboards: Mapping[str, Table]
    """By experiment."""


def write_report(path: Path) -> Report:
    """Writes PATH/report.html and PATH/tables/ from the rows of a benchmark's folder.

    Raises:
        UsageError: `path` is no benchmark's folder, or its rows cannot be used.
        DiskError: the disk is full.
    """
    sections = [_section(frames, path / "tables") for frames in framing.load(path)]
    environment = Environment(
        loader=PackageLoader("benchmarks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"shown": shown, "parts": parts}
    environment.globals |= {"heat": heat, "variables": plots.CSS_VARIABLES}
    page = environment.get_template("bench.html").render(
        sections=sections, version=read_description(path)["version"], again=shlex.join(["textenv", "report", str(path)])
    )
    target = path / "report.html"
    write_atomically(target, lambda place: place.write_text(page, encoding="utf-8"))
    return Report(target, {section.name: section.leaderboard for section in sections})


def summary_table(report: Report) -> rich.console.Group:
    """The leaderboards for a terminal."""
    return rich.console.Group(*(_summary(name, board) for name, board in report.leaderboards.items()))


def _summary(experiment: str, board: Table) -> rich.table.Table:
    measured = board.title.partition(", ")[2]
    shown_table = rich.table.Table(
        title=f"{experiment.replace('_', ' ')}: {measured}",
        caption="0 is the reference, 1 the best reachable" if measured == tables.METRICS["share"] else None,
    )
    shown_table.add_column(board.columns[0], no_wrap=True)
    for column in ("IQM [95 %]", "mean", "gold", "KL, nats", "seconds", "runs", "failed"):
        shown_table.add_column(column, justify="right")
    at = {name: place for place, name in enumerate(board.columns)}
    for row in board.rows:
        mean = row[at["mean"]]
        cells: list[Entry] = [
            row[0], row[at["IQM"]], mean.value if isinstance(mean, Interval) else None, row[at["gold"]],
            row[at["KL, nats"]], row[at["seconds"]], row[at["runs"]], row[at["failed"]],
        ]  # fmt: skip
        shown_table.add_row(*map(shown, cells))
    return shown_table


def heat(value: Entry) -> str:
    """The background of a heat map's entry: its size as opacity, its sign as colour."""
    if not isinstance(value, float):
        return ""
    strength = min(1.0, abs(value))
    return f"background:rgb(var(--{'positive' if value > 0 else 'negative'}) / {0.6 * strength:.2f})"


def _section(frames: Frames, folder: Path) -> Section:
    experiment = experiments.load(frames.experiment)
    # A generator of its own for each experiment: a page is the same whatever else its folder holds.
    rng = np.random.default_rng(0)
    levels = frames.levels(frames.factor)
    looks = styles(levels)
    against = framing.compare_levels(frames)
    leaderboard, compared = tables.leaderboard(frames, rng), tables.comparisons(frames, against, rng)
    each_task, heat_maps = tables.task_by_task(frames, rng), tables.heat_maps(frames)
    moved = tables.transfer(frames) if frames.transfer else None
    groups, lines = figures.groups(frames, looks, leaderboard, rng)
    for table in (leaderboard, compared, each_task, *heat_maps, lines, *([moved] if moved else [])):
        table.write(folder)
    if frames.scored:
        picture = standings(leaderboard, tables.METRICS.get(frames.metric, frames.metric))
        draw = partial(picture.savefig, dpi=PICTURE_DPI, format="png")
        write_atomically(folder / f"{leaderboard.name}.png", draw)
    done = [run for run in frames.runs if run["status"] == "done"]
    return Section(
        name=frames.experiment,
        question=experiment.question,
        metric=tables.METRICS.get(frames.metric, frames.metric),
        factor=frames.factor,
        commands=_commands(frames),
        runs=len(done),
        failed=[run for run in frames.runs if run["status"] == "failed"],
        seeds=len({run["seed"] for run in frames.runs}),
        machines=sorted({f"{run['processor']} ({run['capability']}), torch {run['torch']}" for run in frames.runs}),
        hours=sum(run["seconds_cell"] or 0.0 for run in frames.runs) / 3600,
        verdicts=framing.verdicts(frames, against),
        leaderboard=leaderboard,
        comparisons=compared,
        each_task=each_task,
        heat_maps=heat_maps,
        transfer=moved,
        legend=[(level, looks[level]) for level in levels],
        groups=groups,
        answers=_answers(frames),
        unscored=len(done) - len(frames.scored),
        outdated=frames.outdated,
    )


def _commands(frames: Frames) -> str:
    """All that asked for the experiment: each may have made some of the rows."""
    asked = dict.fromkeys(str(sweep["command"]) for sweep in frames.sweeps)
    return "\n".join(asked) or f"textenv bench --experiments {frames.experiment}"


def _answers(frames: Frames) -> list[Answers]:
    """Answers of the run with the lowest seed of each level, to the first prompts of each task."""
    found = []
    for task in frames.levels("task")[:TASKS_SHOWN]:
        rows = [row for row in frames.samples if row["task"] == task]
        for number in range(SAMPLES_SHOWN):
            mine = sorted((row for row in rows if row["number"] == number), key=lambda row: row["seed"])
            first = {row[frames.factor]: row for row in reversed(mine) if _same(row, mine[0], frames.factor)}
            if first:
                one = next(iter(first.values()))
                answers = [(level, first[level]["after"], first[level]["gold_after"])
                           for level in frames.levels(frames.factor) if level in first]  # fmt: skip
                others = ", ".join(filter(None, (one[name] for name in FACTORS if name != frames.factor)))
                found.append(Answers(others, one["prompt"], one["before"], one["gold_before"], answers))
    return found


def _same(row: Row, other: Row, factor: str) -> bool:
    return all(row[name] == other[name] for name in FACTORS if name != factor)
