"""`textenv raters show`: a rater's or a population's parts, and its answers by how much better a response is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reward_models.raters import Rater, load_rater
from reward_models.raters.crowd import Crowd
from reward_models.raters.curves import choice_curves, typical_crowd
from reward_models.raters.parts import PARTS, Trait
from reward_models.raters.population import Group, Population
from textenv.errors import UsageError
from textenv.files import write_atomically

PICTURES = (".png", ".svg")
DIFFERENCES = np.linspace(-4.0, 4.0, 65)
"""Of utility, a column of the plot each."""
ROWS = 13
"""Of the plot."""


@dataclasses.dataclass(frozen=True)
class ShowConfig:
    """Which rater, and where its picture goes."""

    rater: tyro.conf.Positional[str]
    """A name of `textenv raters list`, a population's file, or module:Class."""
    out: Path | None = None
    """Picture to write, .png or .svg; None is none."""
    seed: int = 0
    """Draws whom a population gives."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: there is no such rater, it is not made of parts, or the picture's format is not known.
    """
    config = tyro.cli(ShowConfig, prog="textenv raters show", description=__doc__, args=list(arguments))
    console = console or Console()
    if config.out is not None and config.out.suffix not in PICTURES:
        raise UsageError(f"--out is {config.out}, expected a name that ends with {' or '.join(PICTURES)}")
    if config.seed < 0:
        raise UsageError(f"--seed is {config.seed}, expected 0 or more")
    rater = load_rater(config.rater)
    if not isinstance(rater, Population) and not (isinstance(rater, Rater) and rater.only_parts):
        raise UsageError(f"the rater {config.rater!r} has methods of its own, which cannot be shown")
    crowd = typical_crowd(rater, config.seed)
    console.print(population_table(rater, crowd) if isinstance(rater, Population) else rater_table(rater))
    curves = group_curves(crowd)
    everybody = np.average(list(curves.values()), axis=0, weights=[len(members(crowd, name)) for name in curves])
    console.print("\nexpected label (1 is the first shown) by how much better the first is, in units of utility")
    for line in text_plot(DIFFERENCES, everybody, ROWS):
        console.print(line, highlight=False, soft_wrap=True)
    if config.out is not None:
        from benchmarks import plots

        figure = plots.choice_curves(DIFFERENCES, curves)
        write_atomically(config.out, lambda temporary: figure.savefig(temporary, dpi=150))
        console.print(f"picture {config.out}", highlight=False, soft_wrap=True)
    return 0


def members(crowd: Crowd, group: str | None) -> list[int]:
    """The places of a group's people in a crowd."""
    return [place for place, name in enumerate(crowd.groups) if name == group]


def group_curves(crowd: Crowd) -> dict[str | None, Float[np.ndarray, " D"]]:
    """The mean expected label of each group's people at `DIFFERENCES`."""
    curves = choice_curves(crowd, DIFFERENCES)
    return {group: curves[members(crowd, group)].mean(axis=0) for group in dict.fromkeys(crowd.groups)}


def rater_table(rater: Rater) -> Table:
    """A rater's parts with their values and what they do."""
    table = Table("part", "value", "what it does", title=rater.name, title_justify="left")
    traits = {"rationality": rater.rationality, "mistake": rater.mistake, **rater.traits}
    for key, part in PARTS.items():
        if key in traits:
            # As text: brackets in a formula are no markup.
            table.add_row(key, _value(traits[key]), Text((part.__doc__ or "").partition("\n")[0]))
    return table


def population_table(population: Population, crowd: Crowd) -> Table:
    """A population's groups: how many of each were recruited, and their parts."""
    bounds = [] if population.labels is None else [f"{population.labels} labels"]
    bounds += [] if population.money is None else [f"{population.money:g} of money"]
    table = Table(
        *("group", "share", "recruited", "cost", "parts"),
        title=f"{population.name}: {population.raters} raters, recruiting {population.recruiting}",
        title_justify="left",
        caption=f"weights spread by {population.between_groups:g} between groups and {population.within_groups:g} "
        f"within; sessions of {population.session_seconds:g} s; budget {' and '.join(bounds) or 'unbounded'}",
        caption_justify="left",
    )
    total = sum(group.share for group in population.groups)
    for group in population.groups:
        recruited = len(members(crowd, group.name))
        table.add_row(Text(group.name), f"{group.share / total:.0%}", str(recruited), f"{group.cost:g}", _parts(group))
    return table


def _parts(group: Group) -> str:
    parts = []
    for key in PARTS:
        if key in group.traits:
            spread = group.spread.get(key, 0.0)
            parts.append(f"{key} {_value(group.traits[key])}" + f" ± {spread:g}" * (spread > 0))
    return ", ".join(parts) or "all neutral"


def _value(trait: Trait) -> str:
    if isinstance(trait, Mapping):
        return ", ".join(f"{name} {value:g}" for name, value in trait.items())
    return f"{trait:g}"


def text_plot(x: Float[np.ndarray, " D"], y: Float[np.ndarray, " D"], rows: int) -> list[str]:
    """A curve of values in [0, 1] as lines of text, a column a point.

    Args:
        x: where the points are, evenly spaced.
        y: what is drawn.
        rows: lines between 0 and 1, odd, so that one half has a line.
    """
    place = np.rint((1 - y) * (rows - 1)).astype(int)
    lines = []
    for row in range(rows):
        value = 1 - row / (rows - 1)
        label = f"{value:4.2f}" if row % ((rows - 1) // 4) == 0 else "    "
        axis = "┼" if label.strip() else "│"
        lines.append(f"{label} {axis}{''.join('•' if at == row else ' ' for at in place)}".rstrip())
    ends, middle = (f"{x[0]:g}", f"{x[-1]:g}"), f"{x[len(x) // 2]:g}"
    half = len(x) // 2
    below = f"{ends[0]:<{half}}{middle}"
    return [*lines, f"     └{'─' * len(x)}", f"      {below:<{len(x) - len(ends[1])}}{ends[1]}"]
