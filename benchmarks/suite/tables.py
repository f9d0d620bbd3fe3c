"""The tables of a benchmark's report, each as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks import statistics
from benchmarks.statistics import Interval, Strata, Values
from benchmarks.suite.frames import FACTORS, Compared, Frames, arrays, by_stratum, signed
from benchmarks.suite.rows import Row
from textenv.files import write_atomically


class Difference(Interval):
    """An interval of a difference."""


Entry: TypeAlias = "str | int | float | Interval | None"

METRICS = {"share": "share of the optimum", "gold_after": "gold score"}
"""What people read of a metric."""

AGGREGATES: Mapping[str, Callable[[Strata], Values]] = {
    "IQM": statistics.interquartile_mean,
    "median": statistics.median,
    "mean": statistics.mean,
    "optimality gap": statistics.optimality_gap,
}
RESULTS = {"gold_after": "gold", "kl": "KL, nats"}
"""Columns whose means stand beside the score, with their titles."""
ENUMERATED = {"total_variation": "distance from π*"}
"""The same of tasks whose policies are enumerated, where there are any."""
COUNTS = {"tokens": "tokens", "labels": "labels"}
"""Columns of what was spent and is counted, likewise."""
SOON = {
    "tokens_to_50": "tokens to 50%",
    "tokens_to_80": "tokens to 80%",
    "seconds_to_50": "seconds to 50%",
    "seconds_to_80": "seconds to 80%",
}
"""Columns whose medians tell how soon so much of the optimum was reached."""


@dataclass(frozen=True)
class Table:
    """One table; numbers stay numbers until it is written."""

    name: str
    """Of its files."""
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    endings: Sequence[str] = ("csv", "md", "tex")
    """In which forms it is written."""

    def csv(self) -> str:
        """Whole numbers, an interval as three columns."""
        wide = [any(isinstance(row[place], Interval) for row in self.rows) for place in range(len(self.columns))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            name
            for column, three in zip(self.columns, wide, strict=True)
            for name in ((column, f"{column} low", f"{column} high") if three else (column,))
        )
        for row in self.rows:
            writer.writerow(
                value for entry, three in zip(row, wide, strict=True) for value in _flat(entry, 3 if three else 1)
            )
        return out.getvalue()

    def markdown(self) -> str:
        """As GitHub shows it."""
        lines = [list(self.columns), ["---", *["---:"] * (len(self.columns) - 1)]]
        lines += [[shown(entry).replace("|", "\\|") for entry in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def latex(self) -> str:
        """A tabular with the rules of booktabs."""
        lines = [
            f"% {self.title}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(_escaped, self.columns)) + r" \\",
            r"\midrule",
            *(" & ".join(_escaped(shown(entry)) for entry in row) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        """Writes NAME.csv, and NAME.md and NAME.tex where it is for people."""
        for ending in self.endings:
            text = {"csv": self.csv, "md": self.markdown, "tex": self.latex}[ending]()
            write_atomically(folder / f"{self.name}.{ending}", partial(Path.write_text, data=text, encoding="utf-8"))


def shown(entry: Entry) -> str:
    """An entry for people: two places, an interval, if it is known, in brackets, a dash where there is nothing."""
    if isinstance(entry, Interval):
        return " ".join(filter(None, parts(entry)))
    if entry is None or (isinstance(entry, float) and not math.isfinite(entry)):
        return "–"
    if isinstance(entry, float):
        return f"{entry:,.0f}" if abs(entry) >= 100 else f"{entry:.2f}"
    return f"{entry:,}" if isinstance(entry, int) else entry


def parts(entry: Interval) -> tuple[str, str]:
    """An interval's middle and its ends for people; no ends where they are not known."""
    form = signed if isinstance(entry, Difference) else shown
    value, low, high = ("–" if math.isnan(number) else form(number) for number in entry)
    return value, "" if low == high == "–" else f"[{low}, {high}]"


def leaderboard(frames: Frames, rng: np.random.Generator) -> Table:
    """A row a level of the factor: how near to the optimum over all its tasks and raters, and what that cost."""
    levels = frames.levels(frames.factor)
    most = max((len(frames.strata(level)) for level in levels), default=0)
    rows: list[tuple[tuple[int, float], list[Entry]]] = []
    for level in levels:
        runs = [run for run in frames.runs if run[frames.factor] == level]
        strata, done = frames.strata(level), [run for run in runs if run["status"] == "done"]
        scores = arrays(strata)
        several: list[Entry] = [
            statistics.stratified_bootstrap([scores], function, rng) if scores else None
            for function in AGGREGATES.values()
        ]
        first = several[0]
        place = (
            levels.index(_family(frames, level, levels)),
            -first.value if isinstance(first, Interval) else math.inf,
        )
        rows.append(
            (place, [level, *several, *(_mean(done, name) for name in RESULTS), *(_soon(done, name) for name in SOON),
                     *(_count(done, name) for name in COUNTS), _mean(done, "seconds"), _sources(done), len(done),
                     len(runs) - len(done), f"{len(strata)} of {most}"])
        )  # fmt: skip
    rows.sort(key=lambda row: row[0])
    columns = [frames.factor, *AGGREGATES, *RESULTS.values(), *SOON.values(), *COUNTS.values(), "seconds",
               "learns from", "runs", "failed", "tasks × raters"]  # fmt: skip
    title = f"Leaderboard, {METRICS.get(frames.metric, frames.metric)}"
    return Table(_named(frames, "leaderboard"), title, columns, [row for _, row in rows])


def _family(frames: Frames, level: str, levels: Sequence[str]) -> str:
    """Levels of a family stand together: an agent's settings where its defaults are beside them; else all are one."""
    beside = any(frames.plain.get(other, other) != other and frames.plain[other] in levels for other in levels)
    plain = frames.plain.get(level, level)
    return plain if beside and plain in levels else levels[0]


def task_by_task(frames: Frames, rng: np.random.Generator) -> Table:
    """A row a task (and rater and variant, where there are several) and level of the factor."""
    others = [column for column in FACTORS if column != frames.factor and
              (column == "task" or len(frames.levels(column)) > 1)]  # fmt: skip
    groups: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for run in (run for run in frames.runs if run["status"] == "done"):
        groups.setdefault(tuple(run[name] for name in others), {}).setdefault(run[frames.factor], []).append(run)
    enumerated = any(run["total_variation"] is not None for run in frames.runs)
    results = RESULTS | (ENUMERATED if enumerated else {})
    rows: list[list[Entry]] = []
    for key, levels in sorted(groups.items()):
        part: list[tuple[float, list[Entry]]] = []
        for level, runs in levels.items():
            scores = arrays(by_stratum([run for run in runs if run[frames.metric] is not None], FACTORS, frames.metric))
            several = statistics.stratified_bootstrap([scores], statistics.mean, rng) if scores else None
            numbers = [*(_mean(runs, name) for name in results), *(_soon(runs, name) for name in SOON)]
            place = math.inf if several is None else -several.value
            part.append((place, [*key, level, several, *numbers, _sources(runs), len(runs)]))
        rows += [row for _, row in sorted(part, key=lambda row: row[0])]
    metric = METRICS.get(frames.metric, frames.metric)
    columns = [*others, frames.factor, metric, *results.values(), *SOON.values(), "learns from", "runs"]
    return Table(_named(frames, "task_by_task"), "Task by task", columns, rows)


def comparisons(frames: Frames, compared: Sequence[Compared], rng: np.random.Generator) -> Table:
    """A row a level against its baseline, over equal tasks, raters and seeds."""
    rows: list[list[Entry]] = [
        [row.level, row.baseline, row.comparison.answer, Difference(*row.comparison.difference),
         statistics.stratified_bootstrap(row.strata, statistics.probability_of_improvement, rng),
         row.comparison.pairs, row.comparison.more_seeds]
        for row in compared
    ]  # fmt: skip
    columns = [frames.factor, "against", "verdict", "difference", "P(improvement)", "pairs", "seeds to settle it"]
    return Table(_named(frames, "comparisons"), "Paired comparisons within equal seeds", columns, rows)


def heat_maps(frames: Frames) -> list[Table]:
    """Agents (with variants) against raters, a map a task, or against tasks where there is one rater."""
    raters = frames.levels("rater")
    if len(raters) == 1:
        maps = [_heat_map(frames, frames.scored, "task", "by_task", raters[0])]
    else:
        maps = [
            _heat_map(frames, [run for run in frames.scored if run["task"] == task], "rater",
                      f"by_rater_{_file_name(task)}", task)
            for task in frames.levels("task")
        ]  # fmt: skip
    return [table for table in maps if table.rows]


def _heat_map(frames: Frames, runs: Sequence[Row], column: str, name: str, title: str) -> Table:
    """The metric's mean over seeds."""
    levels = [level for level in frames.levels(column) if any(run[column] == level for run in runs)]
    order = {agent: place for place, agent in enumerate(frames.levels("agent"))}
    lines = sorted({(run["agent"], run["variant"]) for run in runs}, key=lambda line: (order[line[0]], line[1]))
    rows: list[list[Entry]] = [
        [
            f"{agent} {variant}".strip(),
            *(
                _mean([run for run in runs if (run["agent"], run["variant"], run[column]) == (agent, variant, level)],
                      frames.metric)
                for level in levels
            ),
        ]
        for agent, variant in lines
    ]  # fmt: skip
    return Table(_named(frames, name), title, ["agent", *levels], rows)


def transfer(frames: Frames) -> Table:
    """A row for each agent, learned task, and task and split that it was tried on: the gain of gold."""
    keys = dict.fromkeys((row["agent"], row["task"], row["on_task"], row["split"]) for row in frames.transfer)
    rows: list[list[Entry]] = []
    for key in sorted(keys):
        mine = [r for r in frames.transfer if (r["agent"], r["task"], r["on_task"], r["split"]) == key]
        rows.append([*key, *(_mean(mine, name) for name in ("gold_before", "gold_after", "gain", "kl")), len(mine)])
    columns = ["agent", "learned", "tried on", "prompts", "gold before", "gold after", "gain", "KL, nats", "runs"]
    return Table(_named(frames, "transfer"), "Held-out prompts and other tasks", columns, rows)


def _named(frames: Frames, name: str) -> str:
    return f"{frames.experiment}_{name}"


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def _mean(rows: Iterable[Row], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None]
    return float(np.mean(values)) if values else None


def _count(rows: Iterable[Row], column: str) -> int | None:
    """The mean to a whole number over runs that have any: those by the truth need no labels, and would halve them."""
    several = list(rows)
    middle = _mean([row for row in several if row[column]] or several, column)
    return None if middle is None else round(middle)


def _soon(rows: Iterable[Row], column: str) -> float | None:
    """The median over runs, where those that never got there count as later than all; None: most of them."""
    values = [math.inf if row[column] is None else row[column] for row in rows]
    middle = float(np.median(values)) if values else math.inf
    return middle if math.isfinite(middle) else None


def _sources(rows: Iterable[Row]) -> str | None:
    return ", ".join(dict.fromkeys(row["learns_from"] for row in rows if row["learns_from"])) or None


def _flat(entry: Entry, width: int) -> list[Any]:
    values = list(entry) if isinstance(entry, Interval) else [entry, *[None] * (width - 1)]
    return ["" if value is None or (isinstance(value, float) and math.isnan(value)) else value for value in values]


def _escaped(text: str) -> str:
    """Text as LaTeX takes it."""
    special = {letter: "\\" + letter for letter in "&%$#_{}"} | {"–": "--", "×": r"$\times$"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, letter) for letter in text)
