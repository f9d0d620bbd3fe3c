"""`textenv raters`: who they are, what they are made of, and the labels that they give."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from textenv.errors import unknown_name


class RatersVerb(NamedTuple):
    """One thing that can be done with raters."""

    module: str
    """Has `run(arguments) -> int`, which reads the flags and returns the exit code."""
    line: str
    """What it does, for people."""


VERBS = {
    "list": RatersVerb("benchmarks.raters.listing", "the raters that are known by name, and the parts of one"),
    "show": RatersVerb(
        "benchmarks.raters.show", "a rater's or a population's parts, and how its answers depend on them"
    ),
    "simulate": RatersVerb(
        "benchmarks.raters.simulate", "have responses to a task's prompts compared, to a labels file"
    ),
    "audit": RatersVerb("benchmarks.raters.audit", "who of a labels file can be relied on, and why"),
    "speed": RatersVerb("benchmarks.raters.speed", "time a million labels with every part, and their consensus"),
    "export": RatersVerb("benchmarks.raters.exporting", "a preferences file as TRL's trainers read it"),
    "import": RatersVerb("benchmarks.raters.importing", "comparisons in TRL's formats as a preferences file"),
    "fit": RatersVerb("benchmarks.raters.fit", "a population whose raters judge as those of a labels file did"),
}


def usage() -> str:
    """What `textenv raters --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.line}" for name, verb in VERBS.items())
    return (
        "usage: textenv raters VERB [flags]\n\nSimulated raters whose noise and bias are known.\n\n"
        f"verbs:\n{verbs}\n\n`textenv raters VERB --help` tells a verb's flags."
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: no such verb is known, or as the verb.
    """
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name, *rest = arguments
    if name in ("--help", "-h"):
        print(usage())
        return 0
    if name not in VERBS:
        raise unknown_name("verb of raters", name, VERBS)
    code: int = importlib.import_module(VERBS[name].module).run(rest)
    return code
