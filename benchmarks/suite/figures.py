"""The figures of a benchmark's report in groups of one kind, with the table of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.suite.frames import Frames
from benchmarks.suite.plots import Curves, Line, Style, gold_against_kl, learning, panels, profile
from benchmarks.suite.tables import Entry, Table

MOST_PICTURES = 9
"""Pictures of one kind in a page; the tables have all numbers."""
KINDS = (
    ("tokens", "share", plots.TOKENS, "share of the optimum"),
    ("seconds", "share", "seconds since the run began", "share of the optimum"),
    ("tokens", "gold", plots.TOKENS, "gold score"),
)
"""Of each kind of learning curve its axes and their titles."""
CURVE_COLUMNS = ("panel", "level", "measure", "by", "x", "mean", "low", "high", "runs")

Panel: TypeAlias = "tuple[str, ...]"
"""What a picture is of, beside the factor."""

Lines: TypeAlias = "Mapping[tuple[Panel, str, str], Mapping[str, Line]]"
"""The lines of a panel by what lies along its axes, each by its level."""

Drawing: TypeAlias = "tuple[Callable[[], Figure], str, str]"
"""How a picture is drawn, its description and its name."""


class Group(NamedTuple):
    """Pictures of one kind."""

    title: str
    note: str
    pictures: Sequence[Markup]
    left_out: int
    rows: Sequence[str]
    """Folders of the rows that they are drawn from."""
    table: Table
    """Their numbers."""


def groups(
    frames: Frames, looks: Mapping[str, Style], leaderboard: Table, rng: np.random.Generator
) -> tuple[list[Group], Table]:
    """All figures, and the numbers of the lines in them, of which the page may not show all."""
    curves = Curves.of(frames)
    axes = [(x, y) for x, y, *_ in KINDS] + [("tokens", "kl")]
    lines = {(key, x, y): curves.lines(cells, x, y) for key, cells in panels(frames) for x, y in axes}
    table = Table(f"{frames.experiment}_curves", "Learning curves", CURVE_COLUMNS, _curve_rows(lines), ["csv"])
    found = [
        *_profile(frames, looks, leaderboard, rng),
        *_learning(frames, lines, looks, table),
        *_over_optimisation(frames, lines, looks, table),
    ]
    return found, table


def _profile(frames: Frames, looks: Mapping[str, Style], table: Table, rng: np.random.Generator) -> Iterator[Group]:
    if frames.scored:
        picture = _picture(profile(frames, looks, rng), "Performance profile", f"{frames.experiment}-profile")
        note = (
            "How many of a level's runs reach more than a score, with a pointwise 95 % band by the bootstrap of the "
            "leaderboard's intervals; a line that lies higher is better throughout."
        )
        yield Group("Performance profile", note, [picture], 0, ["runs"], table)


def _learning(frames: Frames, lines: Lines, looks: Mapping[str, Style], table: Table) -> Iterator[Group]:
    for x, y, xlabel, ylabel in KINDS:
        pictures: list[Drawing] = []
        for key, _ in panels(frames):
            several = list(lines[key, x, y].values())
            if several:
                draw = partial(learning, several, looks, _title(key), xlabel)
                pictures.append(
                    (draw, f"{ylabel} by {x}, {_title(key)}", f"{frames.experiment}-{y}-{x}-{len(pictures)}")
                )
        title = f"{ylabel[0].upper()}{ylabel[1:]} by {x}"
        note = "On training prompts while learning; a line is the mean over seeds, a band the middle 80 % of them" + (
            ", seconds those of one thread, the rater and the reward model among them." if x == "seconds" else "."
        )
        yield from _group(title, note, pictures, ["curves"], table)


def _over_optimisation(frames: Frames, lines: Lines, looks: Mapping[str, Style], table: Table) -> Iterator[Group]:
    by_cell = {run["cell"]: run for run in frames.runs}
    pictures: list[Drawing] = []
    for key, cells in panels(frames):
        ends = {}
        for level, several in cells.items():
            points = [(by_cell[cell]["kl"], by_cell[cell]["gold_after"]) for cell in several]
            known = [(max(kl, 0.0) ** 0.5, gold) for kl, gold in points if kl is not None and gold is not None]
            if known:
                ends[level] = np.array(known)
        if ends:
            kl, gold = lines[key, "tokens", "kl"], lines[key, "tokens", "gold"]
            pairs = [(kl[level], gold[level]) for level in cells if level in kl and level in gold]
            draw = partial(gold_against_kl, pairs, ends, looks, _title(key))
            name = f"{frames.experiment}-over-{len(pictures)}"
            pictures.append((draw, f"gold score against the square root of the KL, {_title(key)}", name))
    note = (
        "The way that training took, and as diamonds each run's end on the test prompts. Where gold falls while the KL "
        "grows, the learned reward is being over-optimised."
    )
    yield from _group("Gold score against √KL", note, pictures, ["curves", "runs"], table)


def _group(title: str, note: str, pictures: Sequence[Drawing], rows: Sequence[str], table: Table) -> Iterator[Group]:
    if pictures:
        drawn = [_picture(draw(), description, name) for draw, description, name in pictures[:MOST_PICTURES]]
        yield Group(title, note, drawn, max(0, len(pictures) - MOST_PICTURES), rows, table)


def _curve_rows(lines: Lines) -> list[list[Entry]]:
    """The numbers of the lines in all pictures."""
    rows: list[list[Entry]] = []
    for (key, x, y), several in lines.items():
        for line in several.values():
            points = zip(*(values.tolist() for values in (line.x, line.middle, line.low, line.high)), strict=True)
            rows += [[_title(key), line.level, y, x, *map(_short, point), line.runs] for point in points]
    return rows


def _short(value: float) -> float:
    """Five digits, since the numbers of lines are many and are read off at best."""
    return float(f"{value:.5g}")


def _title(key: Sequence[str]) -> str:
    return " · ".join(filter(None, key))


def _picture(figure: Figure, description: str, name: str) -> Markup:
    # Markup is not escaped again; matplotlib has escaped the texts in it.
    return Markup(plots.svg(figure, name.replace("_", "-"), description))
