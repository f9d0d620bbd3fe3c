"""A benchmark's rows as tables and plots take them, and the verdicts that are drawn from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import experiments, statistics
from benchmarks.experiments import Verdict
from benchmarks.statistics import Comparison, Strata
from benchmarks.suite.results_folder import read, read_description
from benchmarks.suite.rows import Row
from textenv.errors import UsageError

FACTORS = ("agent", "task", "rater", "variant")
"""The columns that tell runs of one experiment and seed apart."""

LONG = ("config", "code", "summary")
"""Columns that no table or plot needs."""

Level: TypeAlias = "Mapping[int, float]"
"""Score by seed."""


@dataclass(frozen=True)
class Frames:
    """The rows of one experiment."""

    experiment: str
    factor: str
    """The column whose levels are compared."""
    metric: str
    runs: Sequence[Row]
    """Done and failed ones."""
    curves: pa.Table
    samples: Sequence[Row]
    transfer: Sequence[Row]
    sweeps: Sequence[Mapping[str, Any]]
    """What was asked, as bench.json has it."""

    @property
    def scored(self) -> list[Row]:
        """Runs that have the metric."""
        return [run for run in self.runs if run["status"] == "done" and run[self.metric] is not None]

    def levels(self, column: str) -> list[str]:
        """The values of a column in the order in which they were asked for, others after them."""
        there = {run[column] for run in self.runs}
        asked = [name for sweep in self.sweeps for name in sweep.get(f"{column}s", ())]
        return [name for name in dict.fromkeys([*asked, *sorted(there)]) if name in there]

    def strata(self, level: str) -> dict[tuple[str, ...], Level]:
        """The scores of a level of the factor, by all else that it was run with."""
        others = [column for column in FACTORS if column != self.factor]
        return by_stratum([run for run in self.scored if run[self.factor] == level], others, self.metric)


class Compared(NamedTuple):
    """A level of the factor against the first one."""

    level: str
    baseline: str
    comparison: Comparison
    strata: tuple[Strata, Strata]
    """The scores of both, where both have any."""


def load(path: Path) -> list[Frames]:
    """The rows of every experiment that a folder holds.

    Raises:
        UsageError: it is no benchmark's folder, has no runs yet, or its files cannot be used.
    """
    sweeps = read_description(path)["sweeps"]
    runs = read(path, "runs").drop_columns(LONG)
    if not len(runs):
        raise UsageError(f"{path} holds no runs yet; `textenv bench --out {path}` makes some")
    versions = sorted(set(runs["version"].to_pylist()))
    if len(versions) > 1:
        raise UsageError(
            f"{path} holds runs of textenv {' and '.join(versions)}, which cannot be compared. Keep each version's "
            "files in a folder of its own."
        )
    tables = {name: read(path, name) for name in ("curves", "samples", "transfer")}
    runs = _newest(runs)
    done = runs.filter(pc.equal(runs["status"], "done"))["cell"].combine_chunks()
    frames = []
    for name in sorted(set(runs["experiment"].to_pylist())):
        known = experiments.load(name)
        own = {key: _of(table.filter(pc.is_in(table["cell"], done)), name) for key, table in tables.items()}
        frames.append(
            Frames(
                name,
                known.factor,
                known.metric,
                _of(runs, name).to_pylist(),
                own["curves"],
                own["samples"].to_pylist(),
                own["transfer"].to_pylist(),
                sweeps,
            )
        )
    return frames


def _newest(runs: pa.Table) -> pa.Table:
    """Of runs that differ in nothing but the code of one's own agent, task or rater, the last that was made."""
    names = ("experiment", *FACTORS, "seed")
    ordered = runs.sort_by([("finished", "ascending")])
    keys = zip(*(ordered[name].to_pylist() for name in names), strict=True)
    last = {key: place for place, key in enumerate(keys)}
    return ordered.take(sorted(last.values()))


def _of(table: pa.Table, experiment: str) -> pa.Table:
    return table.filter(pc.equal(table["experiment"], experiment))


def by_stratum(rows: Iterable[Row], columns: Sequence[str], metric: str) -> dict[tuple[str, ...], Level]:
    """A number of rows by seed, for each combination of the columns."""
    strata: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for row in rows:
        strata[tuple(row[column] for column in columns)][row["seed"]] = row[metric]
    return dict(strata)


def arrays(strata: Mapping[tuple[str, ...], Level], keys: Iterable[tuple[str, ...]] | None = None) -> Strata:
    """The scores of strata as statistics take them."""
    chosen = strata.keys() if keys is None else keys
    return [np.array(list(strata[key].values()), dtype=float) for key in chosen]


def compare_levels(frames: Frames) -> list[Compared]:
    """Each level of the factor against the first one, with intervals that hold together (Bonferroni)."""
    levels = [level for level in frames.levels(frames.factor) if frames.strata(level)]
    if not levels:
        return []
    first = levels[0]
    others = [level for level in levels if level != first]
    confidence = 1 - 0.05 / max(1, len(others))
    reference, rows = frames.strata(first), []
    for level in others:
        mine = frames.strata(level)
        both = sorted(mine.keys() & reference.keys())
        if not both:
            continue
        compared = statistics.compare([mine[key] for key in both], [reference[key] for key in both], level=confidence)
        rows.append(Compared(level, first, compared, (arrays(mine, both), arrays(reference, both))))
    return rows


def verdicts(frames: Frames) -> Sequence[Verdict]:
    """What the experiment says of its rows."""
    judge = experiments.load(frames.experiment).judge
    if judge is not None:
        return judge(frames)
    name = {"gold_after": "gold score"}.get(frames.metric, frames.metric)
    return [said(f"{row.level} against {row.baseline}, {name}", row.comparison) for row in compare_levels(frames)]


def said(what: str, comparison: Comparison) -> Verdict:
    """A comparison as a sentence, with its interval and what would settle it."""
    value, low, high = comparison.difference
    if not comparison.pairs:
        return Verdict(comparison.answer, f"{what}: no two runs with equal seeds.")
    numbers = f"{_signed(value)} [{_signed(low)}, {_signed(high)}]"
    if low != low:
        numbers = f"{_signed(value)} (one seed tells no noise)"
    more = comparison.more_seeds
    settled = "" if not more else f" About {more} more seeds would settle it if it is as large as it looks."
    return Verdict(comparison.answer, f"{what}: {numbers} over {comparison.pairs} pairs of runs.{settled}")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # Adding 0 makes a zero positive.
