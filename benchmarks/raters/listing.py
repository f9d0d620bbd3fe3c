"""`textenv raters list`: the raters that are known by name, and the parts that raters and groups are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.text import Text

from benchmarks.listing import LISTS
from reward_models.raters.parts import PARTS, range_of


@dataclasses.dataclass(frozen=True)
class ListConfig:
    """Nothing to choose."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code."""
    tyro.cli(ListConfig, prog="textenv raters list", description=__doc__, args=list(arguments))
    console = console or Console()
    raters = {**LISTS["raters"]()}
    parts = {
        key: (part.__doc__ or "").partition("\n")[0] + f" [{range_of(part)}{' an attribute' * part.of_attributes}]"
        for key, part in PARTS.items()
    }
    for title, lines in (("raters", raters), ("parts, in the order perception, utility, decision, drift", parts)):
        width = max(map(len, lines))
        console.print(Text(title, style="bold"))
        for name, line in lines.items():
            console.print(Text(f"  {name:<{width}}  {line}"), soft_wrap=True)
    return 0
