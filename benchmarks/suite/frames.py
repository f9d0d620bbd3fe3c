"""A benchmark's rows as tables and plots take them, and the verdicts that are drawn from them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import experiments, statistics
from benchmarks.experiments import Verdict
from benchmarks.statistics import Comparison, Strata
from benchmarks.suite.results_folder import check_version, read, read_description
from benchmarks.suite.rows import Row, contestant
from textenv.errors import UsageError

FACTORS = ("agent", "task", "rater", "variant")
"""The columns that tell runs of one experiment and seed apart."""

OWN = " (own)"
"""What marks the name of an agent that is none of ours wherever it is shown."""

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
    """What was asked of the experiment, as bench.json has it."""
    plain: Mapping[str, str]
    """The agent's name without its settings, by what `agent` is in the rows here: with them, where several are tried.
    """
    outdated: int
    """Runs that are left out, since an agent, task or rater of one's own was changed after them."""

    @property
    def scored(self) -> list[Row]:
        """Runs that have the metric."""
        return [run for run in self.runs if run["status"] == "done" and run[self.metric] is not None]

    def levels(self, column: str) -> list[str]:
        """The values of a column in the order in which they were asked for, others after them."""
        there = {run[column] for run in self.runs}
        asked = [each for sweep in self.sweeps for name in sweep.get(f"{column}s", ()) for each in (name, name + OWN)]
        return [name for name in dict.fromkeys([*asked, *sorted(there)]) if name in there]

    def baseline(self, level: str, levels: Sequence[str]) -> str:
        """What a level is compared with: an agent's settings with its defaults if those are there, else the first."""
        plain = self.plain.get(level, level)
        return plain if plain != level and plain in levels else levels[0]

    def strata(self, level: str) -> dict[tuple[str, ...], Level]:
        """The scores of a level of the factor, by all else that it was run with."""
        others = [column for column in FACTORS if column != self.factor]
        return by_stratum([run for run in self.scored if run[self.factor] == level], others, self.metric)


class Compared(NamedTuple):
    """A level of the factor against its baseline."""

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
    description = read_description(path)
    every = read(path, "runs")
    if not len(every):
        raise UsageError(f"{path} holds no runs yet; `textenv bench --out {path}` makes some")
    check_version(path, every, description["version"])
    tables = {name: read(path, name) for name in ("curves", "samples", "transfer")}
    runs = _newest(every).drop_columns(LONG)
    done = runs.filter(pc.equal(runs["status"], "done"))["cell"].combine_chunks()
    frames = []
    for name in sorted(set(runs["experiment"].to_pylist())):
        known = experiments.load(name)
        own = {key: _of(table.filter(pc.is_in(table["cell"], done)), name) for key, table in tables.items()}
        several = _of(runs, name).to_pylist()
        ours = {run["agent"] for run in several if not run["own_agent"]}
        plain = {_shown(run["agent"], run["settings"], ours): _shown(run["agent"], "", ours) for run in several}
        frames.append(
            Frames(
                name,
                known.factor,
                known.metric,
                _with_contestants(several, ours),
                own["curves"],
                _with_contestants(own["samples"].to_pylist(), ours),
                _with_contestants(own["transfer"].to_pylist(), ours),
                [sweep for sweep in description["sweeps"] if sweep.get("experiment") == name],
                plain,
                len(_of(every, name)) - len(several),
            )
        )
    return frames


def _with_contestants(rows: Iterable[Row], ours: Set[str]) -> list[Row]:
    """The rows with the agent's settings in its name, since they compete with each other."""
    return [row | {"agent": _shown(row["agent"], row["settings"], ours)} for row in rows]


def _shown(agent: str, settings: str | None, ours: Set[str]) -> str:
    return contestant(agent, settings or "") + ("" if agent in ours else OWN)


def _newest(runs: pa.Table) -> pa.Table:
    """The last run of each seed, and none of an agent, task or rater of one's own that was changed after it.

    Seeds of the code before and of the code after would be taken for runs of the same.
    """
    names = ("experiment", *FACTORS, "settings", "seed")
    ordered = runs.sort_by([("finished", "ascending")])
    rows = ordered.select([*names, "code"]).to_pylist()
    codes = [_code(row) for row in rows]
    newest = {who: files for code in codes for who, files in code.items()}
    last = {tuple(row[name] for name in names): place for place, row in enumerate(rows)}
    return ordered.take(
        [place for place in sorted(last.values()) if all(newest[who] == codes[place][who] for who in codes[place])]
    )


def _code(row: Row) -> dict[tuple[str, ...], dict[str, str]]:
    """The files of a run's agent, task and rater with their hashes: none where it is ours."""
    files: dict[str, str] = json.loads(row["code"] or "{}")
    return {
        (row["experiment"], kind, row[kind]): {
            name: digest for name, digest in files.items() if name.startswith(f"{kind} ")
        }
        for kind in ("agent", "task", "rater")
    }


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
    """Each level of the factor against its baseline, with intervals that hold together (Bonferroni)."""
    strata = {level: scores for level in frames.levels(frames.factor) if (scores := frames.strata(level))}
    levels = list(strata)
    others = [level for level in levels if level != levels[0]]
    confidence = 1 - 0.05 / max(1, len(others))
    rows = []
    for level in others:
        first = frames.baseline(level, levels)
        mine, reference = strata[level], strata[first]
        both = sorted(mine.keys() & reference.keys())
        if not both:
            continue
        compared = statistics.compare([mine[key] for key in both], [reference[key] for key in both], level=confidence)
        rows.append(Compared(level, first, compared, (arrays(mine, both), arrays(reference, both))))
    return rows


def verdicts(frames: Frames, compared: Sequence[Compared]) -> Sequence[Verdict]:
    """What the experiment says of its rows, by `compare_levels` where it has no judge of its own."""
    judge = experiments.load(frames.experiment).judge
    if judge is not None:
        return judge(frames)
    name = {"gold_after": "gold score"}.get(frames.metric, frames.metric)
    return [said(f"{row.level} against {row.baseline}, {name}", row.comparison) for row in compared]


def said(what: str, comparison: Comparison) -> Verdict:
    """A comparison as a sentence, with its interval and what would settle it."""
    value, low, high = comparison.difference
    if not comparison.pairs:
        return Verdict(comparison.answer, f"{what}: no two runs with equal seeds.")
    numbers = f"{signed(value)} [{signed(low)}, {signed(high)}]"
    if low != low:
        numbers = f"{signed(value)} (one seed tells no noise)"
    more = comparison.more_seeds
    settled = (
        "" if not more else f" About {more} more seed{'s' * (more > 1)} would settle it if it is as large as it looks."
    )
    return Verdict(
        comparison.answer,
        f"{what}: {numbers} over {comparison.pairs} pair{'s' * (comparison.pairs > 1)} of runs.{settled}",
    )


def signed(value: float) -> str:
    """A difference for people: its sign, and a place more than scores have, since it is the smaller number."""
    return f"{round(value, 3) + 0.0:+.3f}"  # Adding 0 makes a zero positive.
