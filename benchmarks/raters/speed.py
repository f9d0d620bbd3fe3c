"""`textenv raters speed`: how long a million labels of a thousand raters take, with every part, and their consensus.

What is timed is the raters' and the estimators' work; the responses are there before, with all that is known of them.
Seconds are those of a processor core, so that other programs on the machine do not count.
"""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from rich.console import Console
from rich.table import Table

from agents.seeds import Seeds
from benchmarks.raters.simulate import RESPONSES_PER_PROMPT, sample
from reward_models.consensus import METHODS, votes_of
from reward_models.labels import Labels
from reward_models.raters import RATERS, Rater
from reward_models.raters.crowd import Crowd, crowd_of
from reward_models.raters.material import Material, material_of, rated_attributes
from reward_models.raters.parts import PARTS
from reward_models.surveys import survey
from textenv import tasks
from textenv.errors import UsageError


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """How much is timed."""

    labels: int = 1_000_000
    """Labels of each population."""
    raters: int = 1000
    """People of each population."""
    prompts: int = 500
    """Prompts of Concierge, with eight responses each, whose pairs are compared."""
    estimated_labels: int = 100_000
    """Labels that the estimators put together."""
    estimated_raters: int = 200
    """Raters who gave them."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: a number is below 1, or there are more answers to an item than raters.
    """
    config = tyro.cli(SpeedConfig, prog="textenv raters speed", description=__doc__, args=list(arguments))
    console = console or Console()
    for field in dataclasses.fields(config):
        if getattr(config, field.name) < 1:
            raise UsageError(f"--{field.name.replace('_', '-')} is {getattr(config, field.name)}, expected 1 or more")
    torch.set_num_threads(1)
    task = tasks.load("concierge")
    responses = sample(task, [task.reference], config.prompts, Seeds(0))
    start = time.process_time()
    material = material_of(task, responses, prefixes=True)
    console.print(
        f"{len(responses):,} responses and their beginnings judged in {time.process_time() - start:.1f} s; "
        f"{peak()} MiB at the peak",
        highlight=False,
    )
    pairs = np.array(
        [pair for first in range(0, len(responses), RESPONSES_PER_PROMPT)
         for pair in combinations(range(first, first + RESPONSES_PER_PROMPT), 2)]
    )  # fmt: skip
    table = Table("what", "labels", "raters", "core seconds", "peak MiB so far", box=None, header_style="dim")
    for name, crowd in crowds(config.raters, rated_attributes(task)).items():
        seconds, labels = timed(crowd, material, pairs, config.labels)
        table.add_row(name, f"{len(labels):,}", f"{len(crowd):,}", f"{seconds:.2f}", peak())
    crowd = crowds(config.estimated_raters, rated_attributes(task))["part mistake"]
    items = pairs[np.arange(max(1, config.estimated_labels // min(5, len(crowd)))) % len(pairs)]
    labels = survey(crowd, material, items, np.random.default_rng(0), raters_per_item=min(5, len(crowd))).labels
    votes = votes_of(labels)
    for method in ("dawid-skene", "crowd-bt"):
        start = time.process_time()
        METHODS[method](votes)
        seconds = time.process_time() - start
        table.add_row(method, f"{len(labels):,}", f"{len(crowd):,}", f"{seconds:.2f}", peak())
    console.print(table)
    return 0


def crowds(raters: int, attribute_names: Sequence[str]) -> dict[str, Crowd]:
    """So many people of each preset, of each part by itself and of all together, everybody with values of their own."""
    rng = np.random.default_rng(0)
    found = {}
    for name, preset in RATERS.items():
        made = preset.make()
        found[f"preset {name}"] = (
            crowd_of(made, attribute_names, raters)
            if isinstance(made, Rater)
            else dataclasses.replace(made, raters=raters).recruit(attribute_names, rng)
        )
    own: dict[str, Float[np.ndarray, "R ..."]] = {}
    for key, part in PARTS.items():
        shape = (raters, len(attribute_names)) if part.of_attributes else (raters,)
        # Values that every part may have; the attributes of a halo share at most 1.
        own[key] = rng.uniform(0.1, 0.9, shape) / (len(attribute_names) if part.of_attributes else 1)
    own["reads"] = rng.integers(4, 20, raters).astype(float)
    names, groups = tuple(f"rater-{number}" for number in range(raters)), (None,) * raters
    for key, values in own.items():
        found[f"part {key}"] = Crowd(names, groups, {key: values}, np.zeros(raters))
    found["all parts"] = Crowd(names, groups, own, np.zeros(raters))
    return found


def timed(crowd: Crowd, material: Material, pairs: Int[np.ndarray, "m 2"], labels: int) -> tuple[float, Labels]:
    """The seconds that so many labels take, and these.

    Raises:
        UsageError: there would be more answers to an item than raters.
    """
    each = -(-labels // len(pairs))
    start = time.process_time()
    result = survey(crowd, material, pairs[: -(-labels // each)], np.random.default_rng(0), raters_per_item=each)
    return time.process_time() - start, result.labels


def peak() -> str:
    """Peak memory of this process in MiB."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}"
