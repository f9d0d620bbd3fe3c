"""The experiments: each folder here is one, found by being there.

A folder's `__init__.py` has `EXPERIMENT`, an `Experiment`: the question that it asks, what it varies, what it
measures, and how it comes to a verdict.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from textenv.errors import unknown_name

if TYPE_CHECKING:
    from benchmarks.suite.frames import Frames

Factor = Literal["agent", "rater", "variant"]


class Verdict(NamedTuple):
    """One answer of an experiment."""

    answer: str
    """better, worse or cannot tell."""
    sentence: str
    """What was compared with what, by how much, with the interval."""


@dataclass(frozen=True)
class Experiment:
    """What is run, what is measured, and what is said of it."""

    question: str
    """What it asks, in one line."""
    factor: Factor = "agent"
    """The column whose levels are compared, on equal tasks, seeds and all else."""
    metric: str = "share"
    """The column of `runs` by which they are compared; more is better."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    """Settings by the level of what is varied, the one that others are compared with first."""
    labels_needed: bool = False
    """Whether it makes no sense with the truth as judge."""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Agents, tasks, tokens and the like that take the place of the chosen preset's, where nothing else is asked."""
    agent_settings: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By agent the settings of its own that are tried, its defaults ({}) first, with which the others are compared;
    what comes to the defaults is left out."""
    transfer: bool = False
    """Whether policies are tried on held-out prompts and on other tasks of the same reference."""
    judge: Callable[[Frames], Sequence[Verdict]] | None = None
    """Comes to verdicts in a way of its own; None compares each level with the first one."""


def names() -> list[str]:
    """The experiments that are there."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def load(name: str) -> Experiment:
    """An experiment by name.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in names():
        raise unknown_name("experiment", name, names())
    experiment: Experiment = importlib.import_module(f"{__name__}.{name}").EXPERIMENT
    return experiment
