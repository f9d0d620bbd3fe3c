"""The report of an audit: one HTML file that needs no network and no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.report import number
from reward_models.audit import VERDICTS, Audit, AuditConfig
from textenv.files import write_atomically

COLOURS = {"drop": plots.TRUTH, "minority": plots.INK, "watch": plots.MUTED, "keep": plots.LEARNED}
MOST_NAMED = 40
"""Raters whose names stand beside the picture; with more of them only their order is shown."""


def write_audit_report(result: Audit, config: AuditConfig, source: str, target: Path) -> None:
    """Writes the report.

    Args:
        result: the audit.
        config: what was asked of the raters.
        source: what was audited, for the title.
        target: the file.

    Raises:
        DiskError: it cannot be written.
    """
    page = render(result, config, source)
    write_atomically(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))


def render(result: Audit, config: AuditConfig, source: str) -> str:
    """The page of an audit."""
    environment = Environment(
        loader=PackageLoader("benchmarks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = number
    pictures = [(accuracies(result, config), "How often each rater is right", "accuracy")]
    if np.isfinite(result.measures.first.share * result.measures.longer.share).any():
        pictures.append((leanings(result), "What each rater leans to, whatever is better", "leanings"))
    return environment.get_template("raters_audit.html").render(
        result=result,
        config=config,
        source=source,
        verdicts=VERDICTS,
        rows=[_row(result, place) for place in range(len(result.verdicts))],
        # Markup is not escaped again; matplotlib has escaped the texts in it.
        pictures=[Markup(plots.svg(figure, name, title)) for figure, title, name in pictures],
    )


def _row(result: Audit, position: int) -> dict[str, Any]:
    each, measures = result.verdicts[position], result.measures
    place = each.place
    low, high = result.accuracy.interval()[place]
    shares = ("gold", "agreement", "first", "longer", "ties", "skipped", "swap", "self", "true")
    values = {name: float(getattr(measures, name).share[place]) for name in shares}
    counts = {f"{name}_count": int(getattr(measures, name).answers[place]) for name in ("gold", "swap", "self")}
    return {
        **values,
        **counts,
        "rater": each.rater,
        "verdict": each.verdict,
        "evidence": each.evidence,
        "answers": int(result.answers[place]),
        "accuracy": float(result.accuracy.mean[place]),
        "low": float(low),
        "high": float(high),
        "slope": float(100 * measures.drift.slope[place]),
        "p": float(measures.drift.p[place]),
        "seconds": float(measures.seconds[place]),
    }


def accuracies(result: Audit, config: AuditConfig) -> Figure:
    """Each rater's accuracy with its interval of 95 %, the least accurate at the top."""
    mean, interval = result.accuracy.mean, result.accuracy.interval()
    order = sorted(result.verdicts, key=lambda each: -mean[each.place])
    named = len(order) <= MOST_NAMED
    height = min(0.17 * len(order), 7.0)
    left = 1.3 if named else 0.3
    figure = Figure(figsize=(4.6, height + 0.95))
    axes = plots.bare_axes(figure, (left, 0.5, 4.4 - left, height + 0.15))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=plots.LINE, linewidth=0.8)
    axes.set_xlabel("probability to be right", color=plots.INK, fontsize=9)
    axes.axvline(0.5, color=plots.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.axvline(config.useful_accuracy, color=plots.TRUTH, linewidth=1, linestyle=(0, (4, 3)))
    for row, each in enumerate(order):
        colour = COLOURS[each.verdict]
        axes.hlines(row, *interval[each.place], color=colour, linewidth=1.4 if named else 0.8)
        axes.plot(mean[each.place], row, marker="o", markersize=4 if named else 2, color=colour)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_yticks([])
    if named:
        labels = [each.rater if len(each.rater) <= 18 else f"{each.rater[:17]}…" for each in order]
        axes.set_yticks(range(len(order)), labels, fontsize=8, parse_math=False)
    return figure


def leanings(result: Audit) -> Figure:
    """How often each rater answers for what is shown first, against how often for the longer response."""
    measures = result.measures
    figure = Figure(figsize=(4.2, 3.6))
    axes = plots.bare_axes(figure, (0.52, 0.5, 3.56, 2.78))
    axes.set_xlabel("share of answers for what is shown first", color=plots.INK, fontsize=9)
    axes.set_title("share for the longer", color=plots.INK, fontsize=9, loc="left", x=-0.52 / 3.56, pad=8)
    axes.axvline(0.5, color=plots.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.axhline(0.5, color=plots.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for verdict in reversed(VERDICTS):  # Those to drop lie on top.
        places = [each.place for each in result.verdicts if each.verdict == verdict]
        x, y = measures.first.share[places], measures.longer.share[places]
        axes.plot(
            x, y, linestyle="none", marker="o", markersize=5, markeredgewidth=0, color=COLOURS[verdict], alpha=0.7
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure
