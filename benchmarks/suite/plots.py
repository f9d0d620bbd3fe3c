"""The pictures of a benchmark's report: one line a level of what is compared, with a band over the seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks import plots, statistics
from benchmarks.smoothing import moving_average, smoothing_window
from benchmarks.statistics import Interval
from benchmarks.suite.frames import FACTORS, Frames, arrays
from benchmarks.suite.tables import METRICS, Table

SIZE = (3.6, 2.5)
"""Inches of a picture."""
POINTS = 50
"""Of a line."""
BAND = (0.1, 0.9)
"""Quantiles over seeds between which a band lies."""
DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


class Style(NamedTuple):
    """How a level's line looks."""

    colour: str
    dashes: tuple[int, tuple[float, ...]]


class Line(NamedTuple):
    """One level's runs on a common grid."""

    level: str
    x: Float[np.ndarray, " p"]
    middle: Float[np.ndarray, " p"]
    """Mean over runs."""
    low: Float[np.ndarray, " p"]
    high: Float[np.ndarray, " p"]
    runs: int


@dataclass(frozen=True)
class Curves:
    """The learning curves of every run, by what the run was."""

    columns: Mapping[str, Float[np.ndarray, " n"]]
    slices: Mapping[str, slice]
    """Where each cell's iterations lie."""

    @classmethod
    def of(cls, frames: Frames) -> Curves:
        """Sorts the rows of `curves` by cell and iteration."""
        table = frames.curves.sort_by([("cell", "ascending"), ("iteration", "ascending")])
        names = ("tokens", "seconds", "gold", "reward", "kl", "share", "objective")
        columns = {name: np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=float) for name in names}
        cells = np.asarray(table["cell"].to_numpy(zero_copy_only=False))
        starts = np.flatnonzero(np.r_[True, cells[1:] != cells[:-1]]) if len(cells) else np.array([], dtype=int)
        ends = [*starts[1:], len(cells)][: len(starts)]  # Of no curves there are no ends either.
        slices = {cells[start]: slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True)}
        return cls(columns, slices)

    def lines(self, cells: Mapping[str, Sequence[str]], x: str, y: str) -> dict[str, Line]:
        """The lines of levels, of which each has its cells; levels without any are left out."""
        found = {level: self.line(level, several, x, y) for level, several in cells.items()}
        return {level: line for level, line in found.items() if line is not None}

    def line(self, level: str, cells: Sequence[str], x: str, y: str) -> Line | None:
        """The mean of runs over their median range, beyond its ends each run as there; None where none has these."""
        runs = []
        for cell in cells:
            place = self.slices.get(cell)
            if place is None:
                continue
            xs, ys = self.columns[x][place], self.columns[y][place]
            keep = np.isfinite(xs) & np.isfinite(ys)
            if keep.sum() > 1:
                window = smoothing_window(int(keep.sum()))
                runs.append((xs[keep], moving_average(ys[keep], window)))
        if not runs:
            return None
        grid = np.linspace(np.median([xs[0] for xs, _ in runs]), np.median([xs[-1] for xs, _ in runs]), POINTS)
        values = np.array([np.interp(grid, xs, ys) for xs, ys in runs])
        low, high = np.quantile(values, BAND, axis=0)
        return Line(level, grid, values.mean(axis=0), low, high, len(runs))


def styles(levels: Sequence[str]) -> dict[str, Style]:
    """A look for each level, told apart without colour from the eighth on."""
    count = len(plots.SERIES)
    return {
        level: Style(plots.SERIES[place % count], DASHES[place // count % len(DASHES)])
        for place, level in enumerate(levels)
    }


def panels(frames: Frames) -> Iterator[tuple[tuple[str, ...], dict[str, list[str]]]]:
    """For each combination beside the factor: its names, and the done cells of each level."""
    others = [column for column in FACTORS if column != frames.factor]
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for run in frames.runs:
        if run["status"] == "done":
            key = tuple(run[column] for column in others)
            groups.setdefault(key, {}).setdefault(run[frames.factor], []).append(run["cell"])
    yield from sorted(groups.items())


def learning(lines: Sequence[Line], looks: Mapping[str, Style], title: str, xlabel: str) -> Figure:
    """Means over runs with their bands."""
    figure = Figure(figsize=SIZE)
    axes = _axes(figure, title, xlabel)
    for line in lines:
        look = looks[line.level]
        axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.14, linewidth=0)
        axes.plot(line.x, line.middle, color=look.colour, linestyle=look.dashes, linewidth=1.6)
    if xlabel == plots.TOKENS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    return figure


def gold_against_kl(
    pairs: Sequence[tuple[Line, Line]],
    ends: Mapping[str, Float[np.ndarray, "n 2"]],
    looks: Mapping[str, Style],
    title: str,
) -> Figure:
    """The way of training in gold against √KL (Gao et al. 2023, section 3.1), and where each run ended.

    Args:
        pairs: of each level the KL and the gold score over equal grids of tokens.
        ends: of each level the √KL and the gold score of each run on the test prompts.
        looks: of each level.
        title: the picture's.
    """
    figure = Figure(figsize=SIZE)
    axes = _axes(figure, title, "√KL from the reference (nats, square root)")
    for kl, gold in pairs:
        look = looks[kl.level]
        distance = np.sqrt(np.maximum(kl.middle, 0.0))
        axes.plot(distance, gold.middle, color=look.colour, linestyle=look.dashes, linewidth=1.4)
    for level, points in ends.items():
        axes.plot(points[:, 0], points[:, 1], linestyle="none", marker="D", markersize=4, color=looks[level].colour,
                  markeredgewidth=0, alpha=0.8)  # fmt: skip
    axes.set_xlim(left=0)
    return figure


def profile(frames: Frames, looks: Mapping[str, Style], rng: np.random.Generator) -> Figure:
    """The fraction of runs above each score, with its band by a bootstrap (Agarwal et al. 2021, section 4.2)."""
    found = {level: frames.strata(level) for level in frames.levels(frames.factor)}
    scores = {level: arrays(strata) for level, strata in found.items() if strata}
    every = np.concatenate([each for strata in scores.values() for each in strata])
    grid = np.linspace(min(0.0, float(every.min())), max(1.0, float(every.max())), 101)
    figure = Figure(figsize=(5.6, 2.9))
    name = METRICS.get(frames.metric, frames.metric)
    axes = _axes(figure, "fraction of runs with more", f"{name} (τ)")
    for level, strata in scores.items():
        look = looks[level]
        fractions = statistics.performance_profile(strata, grid)
        band = statistics.profile_band(strata, grid, rng)
        if band is not None:
            axes.fill_between(grid, *band, step="post", color=look.colour, alpha=0.14, linewidth=0)
        axes.step(grid, fractions, where="post", color=look.colour, linestyle=look.dashes, linewidth=1.6)
    axes.set_ylim(-0.02, 1.02)
    return figure


def standings(table: Table, name: str) -> Figure:
    """A leaderboard as a picture that stands alone: each level's interquartile mean with its interval.

    Args:
        table: of `tables.leaderboard`.
        name: of what is measured.
    """
    at = table.columns.index("IQM")
    ranked = [(str(row[0]), row[at]) for row in table.rows]
    shown = [(level, score) for level, score in ranked if isinstance(score, Interval)]
    figure = Figure(figsize=(6.4, 0.9 + 0.26 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown))
    values, lows, highs = (np.array([score[part] for _, score in shown]) for part in range(3))
    axes.hlines(places, lows, highs, color=plots.LEARNED, linewidth=2.2, alpha=0.45)
    axes.plot(values, places, linestyle="none", marker="o", markersize=5.5, color=plots.LEARNED)
    axes.set_yticks(places, [level for level, _ in shown], fontsize=9, color=plots.INK)
    axes.set_ylim(len(shown) - 0.5, -0.5)  # The best one on top.
    ends = np.concatenate([values, lows, highs])
    axes.set_xlim(min(0.0, np.nanmin(ends)) - 0.02, max(1.0, np.nanmax(ends)) + 0.02)
    axes.set_xlabel(f"{name}, interquartile mean with its 95 % interval", fontsize=9, color=plots.INK)
    axes.grid(axis="x", color=plots.LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=plots.INK, labelsize=9)
    axes.spines[:].set_visible(False)
    return figure


def _axes(figure: Figure, title: str, xlabel: str) -> Axes:
    width, height = figure.get_size_inches()
    axes = plots.bare_axes(figure, (0.52, 0.5, width - 0.64, height - 0.82))
    axes.set_xlabel(xlabel, color=plots.INK, fontsize=9)
    axes.set_title(title, color=plots.INK, fontsize=9, loc="left", x=-0.52 / (width - 0.64), pad=8)
    return axes
