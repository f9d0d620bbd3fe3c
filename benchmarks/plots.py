"""The report's pictures: matplotlib figures as inline SVG that follows the page's light or dark colours.

Figures are drawn in the light palette; on the way out each palette colour becomes a CSS variable of
the page with that colour as its fallback, so one picture serves both themes and still stands alone.
"""

from __future__ import annotations

import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from benchmarks.smoothing import moving_average, smoothing_window

INK = "#1b1f24"
MUTED = "#59636e"
LINE = "#d8dee4"
TRUTH = "#a85400"
LEARNED = "#0b62a6"
"""Orange for the truth and blue for what was learned: told apart with any common colour blindness."""

SERIES = (LEARNED, TRUTH, "#1a7f37", "#a3307f", "#6639ba", "#7a6a00", "#0a7a80")
"""Colours of several lines in one picture; beyond them the lines' dashes tell them apart."""

CSS_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", TRUTH: "--truth", LEARNED: "--learned"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES) if number > 1
}

TOKENS = "response tokens learned from"
"""Axis label of training's length; an axis so labelled counts in thousands."""

Values = Float[np.ndarray, " n"]


class Mark(NamedTuple):
    """A measured point beside a curve: a diamond, hollow before training and filled after."""

    x: float
    y: float
    filled: bool


@dataclass(frozen=True)
class Bin:
    """Held-out pairs to which the reward model gave about the same probability."""

    predicted: float
    """Mean predicted probability."""
    observed: float
    """Fraction of the labels that came out so."""
    count: int


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element: no dates, no network, the same bytes for the same numbers.

    `name` (letters and hyphens) keeps the ids of several pictures in one page apart;
    `description` is what a screen reader says.
    """
    buffer = io.StringIO()
    # These two settings exist only as rcParams, so they are set for the length of this call.
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text))
    for colour, variable in CSS_VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    view_box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg {view_box.group() if view_box else ""} role="img" aria-label="{html.escape(description)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1).strip()


def curve(
    x: Values,
    y: Values,
    *,
    xlabel: str,
    ylabel: str,
    colour: str,
    marks: Sequence[Mark] = (),
    size: tuple[float, float] = (4.2, 2.8),
) -> Figure:
    """One faint point an iteration and their moving average, in the order of training.

    Points where either number is not finite are left out. `size` is in inches; type is of one size
    whatever the picture's, so a picture that is to be shown small is drawn small.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    figure = Figure(figsize=size)
    axes = bare_axes(figure, (0.52, 0.5, size[0] - 0.64, size[1] - 0.82))
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_title(ylabel, color=INK, fontsize=9, loc="left", x=-0.52 / (size[0] - 0.64), pad=8)
    axes.plot(x, y, linestyle="none", marker="o", markersize=3.5, markeredgewidth=0, color=colour, alpha=0.4)
    window = smoothing_window(len(x))
    axes.plot(moving_average(x, window), moving_average(y, window), color=colour, linewidth=1.6)
    for mark in marks:
        fill = INK if mark.filled else "none"
        axes.plot(mark.x, mark.y, marker="D", markersize=5, color=INK, markerfacecolor=fill, clip_on=False, zorder=4)
    if xlabel == TOKENS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        # A little room, so that what was measured before training does not lie on the labels.
        axes.set_xlim(left=-0.03 * axes.get_xlim()[1])
    return figure


def calibration(bins: Sequence[Bin]) -> Figure:
    """Predicted against observed frequency with 95 % Wilson intervals, over the number of pairs in each bin."""
    shown = [each for each in bins if each.count > 0]
    predicted = np.array([each.predicted for each in shown])
    observed = np.array([each.observed for each in shown])
    count = np.array([each.count for each in shown], dtype=float)
    # A reward model's probability for the answer that it prefers never lies below one half.
    low = 0.5 if predicted.size and predicted.min() >= 0.5 else 0.0
    figure = Figure(figsize=(4.2, 4.1))
    top = bare_axes(figure, (0.52, 1.42, 3.56, 2.36))
    bottom = bare_axes(figure, (0.52, 0.5, 3.56, 0.62))
    top.set_title("observed fraction", color=INK, fontsize=9, loc="left", x=-0.52 / 3.56, pad=8)
    bottom.set_title("held-out pairs", color=INK, fontsize=9, loc="left", x=-0.52 / 3.56, pad=4)
    bottom.set_xlabel("predicted probability", color=INK, fontsize=9)
    top.plot([low, 1], [low, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    lower, upper = wilson_interval(observed, count)
    top.vlines(predicted, lower, upper, color=LEARNED, linewidth=1.4)
    top.plot(predicted, observed, marker="o", markersize=5, linestyle="none", color=LEARNED)
    for axes in (top, bottom):
        axes.set_xlim(low - 0.02, 1.02)
    top.set_ylim(min(low, lower.min(initial=low)) - 0.02, 1.02)
    top.tick_params(labelbottom=False)
    bars = bottom.bar(predicted, count, width=0.05 * (1 - low), color=LEARNED, alpha=0.55)
    bottom.bar_label(bars, labels=[f"{each.count}" for each in shown], fontsize=7, color=INK, padding=1)
    bottom.set_ylim(0, 1.35 * count.max(initial=1))
    bottom.set_yticks([])
    return figure


def choice_curves(differences: Values, curves: Mapping[str | None, Values]) -> Figure:
    """Expected label by the difference in utility, a line a group, beside the sure choice of the better one."""
    figure = Figure(figsize=(4.2, 2.8))
    axes = bare_axes(figure, (0.52, 0.5, 3.56, 1.98))
    axes.set_xlabel("how much better the first is, in units of utility", color=INK, fontsize=9)
    axes.set_title("expected label", color=INK, fontsize=9, loc="left", x=-0.52 / 3.56, pad=8)
    axes.step(differences, (1 + np.sign(differences)) / 2, where="mid", color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    styles = [(colour, style) for style in ("-", "--", ":", "-.") for colour in (LEARNED, TRUTH)]
    for (group, curve), (colour, style) in zip(curves.items(), itertools.cycle(styles), strict=False):
        axes.plot(differences, curve, color=colour, linestyle=style, linewidth=1.6, label=group)
    axes.set_ylim(-0.02, 1.02)
    if None not in curves:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def wilson_interval(fraction: Values, count: Values, z: float = 1.96) -> tuple[Values, Values]:
    """Ends of Wilson's score interval for a proportion seen in `count` trials (Wilson 1927)."""
    centre = (fraction + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = z / (1 + z**2 / count) * np.sqrt(fraction * (1 - fraction) / count + z**2 / (4 * count**2))
    return centre - spread, centre + spread


def bare_axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Bare axes at left, bottom, width, height in inches: fixed, so that pictures line up in the page."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8, length=0, pad=4)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    return axes
