"""The measurement in one picture: who makes how many tokens a processor second, and what cost grows with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.plots import INK, LEARNED, LINE, MUTED
from textenv.files import write_atomically

TITLES = {
    "iterations": "whole iterations, 4 layers x 128",
    "concierge": "whole iterations on Concierge",
    "decode": "decoding",
    "stock": "beside stable-baselines3",
}
BAR = 0.24
"""Inches."""
DPI = 150


def draw(file: Path, summary: Mapping[str, Any], curves: Mapping[str, Sequence[tuple[float, float]]]) -> bool:
    """Writes the picture, with a panel for whatever was measured; whether there was anything.

    Args:
        file: a PNG.
        summary: of the races.
        curves: processor seconds along each axis.
    """
    races = [entry for entry in summary["races"] if entry["threads"] == _fewest_threads(summary)]
    panels = [(title, [entry for entry in races if entry["section"] == section]) for section, title in TITLES.items()]
    panels = [(title, entries) for title, entries in panels if entries]
    if not panels and not curves:
        return False
    heights = [len(entries) + 2.5 for _, entries in panels] + ([10.0] if curves else [])
    figure = Figure(figsize=(8.5, BAR * sum(heights) + 0.3), layout="constrained")
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    for part, (title, entries) in zip(parts, panels, strict=False):
        _bars(part.subplots(), title, entries)
    if curves:
        for axes, (name, points) in zip(
            parts[-1].subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
        ):
            _curve(axes, name, points, summary["slopes"][name])
    write_atomically(file, lambda temporary: figure.savefig(temporary, dpi=DPI, format="png"))
    return True


def _fewest_threads(summary: Mapping[str, Any]) -> int:
    return min((int(entry["threads"]) for entry in summary["races"]), default=1)


def _bars(axes: Axes, title: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Medians with their quartiles; ours in colour."""
    several = len({(entry["model"], entry["batch"]) for entry in entries if entry["section"] == "decode"}) > 1
    for place, entry in enumerate(entries):
        rate = entry["tokens_per_cpu_second"]
        colour = LEARNED if entry["contestant"].startswith("textenv") else MUTED
        axes.barh(place, rate["median"], height=0.62, color=colour)
        axes.hlines(place, rate["low"], rate["high"], color=INK, linewidth=1.2)
        axes.annotate(f"{rate['median']:,.0f}", (max(rate["median"], rate["high"]), place), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8, color=INK)  # fmt: skip
    names = [entry["contestant"] + (f" x {entry['batch']}, {entry['model']}" if several else "") for entry in entries]
    axes.set_yticks(range(len(entries)), names, fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(f"{title}: tokens a processor second", fontsize=9, loc="left", color=INK)
    _bare(axes)


def _curve(axes: Axes, name: str, points: Sequence[tuple[float, float]], slope: float) -> None:
    x, y = zip(*points, strict=True)
    axes.loglog(x, y, marker="o", markersize=4, color=LEARNED, linewidth=1.4)
    axes.loglog(x, [y[0] * each / x[0] for each in x], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_title(f"seconds by {name}: slope {slope:.2f}", fontsize=9, loc="left", color=INK)
    axes.set_xlabel(f"{name} (dashed: in proportion)", fontsize=8, color=MUTED)
    # On two log axes of a decade or less, matplotlib's own labels run into each other.
    axes.minorticks_off()
    axes.set_xticks(x[:: max(1, len(x) // 3)])
    axes.set_yticks([y[0], y[-1]])
    axes.xaxis.set_major_formatter(EngFormatter(places=0, sep=""))
    axes.yaxis.set_major_formatter(EngFormatter(unit="s", places=1, sep=""))
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=MUTED, labelsize=8, length=0, which="both")
