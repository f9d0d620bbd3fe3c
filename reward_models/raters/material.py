"""What there is to judge: responses as simulated raters know them, by attributes, length and source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int

from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.tasks.base import Gold, Task

NON_SYCOPHANTIC = "non_sycophantic"
"""The attribute whose lack is sycophancy."""


@runtime_checkable
class Weighted(Protocol):
    """A task whose utility is a weighted sum of its attributes."""

    @property
    def utility_weights(self) -> tuple[float, ...]:
        """What one unit of each attribute adds to the utility."""
        ...


@dataclass(frozen=True)
class Material:
    """B responses.

    Raises:
        ValueError: the arrays' shapes do not go together.
    """

    attributes: Float[np.ndarray, "B A"]
    """As they truly are; their weighted sum is the true utility."""
    weights: Float[np.ndarray, " A"]
    """What a unit of each attribute adds to the utility."""
    attribute_names: tuple[str, ...]
    lengths: Int[np.ndarray, " B"]
    """Tokens of each response."""
    prompt_lengths: Int[np.ndarray, " B"]
    """Tokens of the prompt that each one answers."""
    sources: Int[np.ndarray, " B"]
    """Which policy wrote each one, a place in `source_names`."""
    source_names: tuple[str, ...] = ("reference",)
    prefixes: Float[np.ndarray, "B T+1 A"] | None = None
    """Attributes of the first 0, 1, … T tokens, those of the whole after its end; None where nobody needs them."""

    def __post_init__(self) -> None:
        b, a = self.attributes.shape
        right = {
            "weights": (self.weights, (a,)),
            "lengths": (self.lengths, (b,)),
            "prompt_lengths": (self.prompt_lengths, (b,)),
            "sources": (self.sources, (b,)),
        }
        for name, (array, shape) in right.items():
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
        if len(self.attribute_names) != a:
            raise ValueError(f"{len(self.attribute_names)} attribute names for {a} attributes")
        if self.prefixes is not None and (self.prefixes.shape[0], self.prefixes.shape[2]) != (b, a):
            raise ValueError(f"prefixes has shape {self.prefixes.shape}, expected ({b}, T+1, {a})")

    def __len__(self) -> int:
        return len(self.attributes)

    @cached_property
    def utility(self) -> Float[np.ndarray, " B"]:
        """The true utility of each response."""
        utility: Float[np.ndarray, " B"] = self.attributes @ self.weights
        return utility

    @cached_property
    def sycophantic(self) -> Float[np.ndarray, " B"]:
        """How sycophantic each response is.

        Raises:
            UsageError: the task does not know sycophancy.
        """
        return 1 - self.attributes[:, sycophancy_place(self.attribute_names)]


def sycophancy_place(attribute_names: Sequence[str]) -> int:
    """Where `NON_SYCOPHANTIC` stands among a task's attributes.

    Raises:
        UsageError: it does not.
    """
    if NON_SYCOPHANTIC not in attribute_names:
        raise UsageError(
            f"a rater likes sycophancy, but the task has no attribute {NON_SYCOPHANTIC}; it has "
            f"{', '.join(attribute_names)}. Take sycophancy out, or choose another task"
        )
    return list(attribute_names).index(NON_SYCOPHANTIC)


def rated_attributes(task: Task) -> tuple[str, ...]:
    """The attributes that raters of a task's responses can tell apart: "utility" alone where it has no weights."""
    return task.attribute_names if isinstance(task, Weighted) else ("utility",)


def material_of(task: Task, responses: Responses, prefixes: bool) -> Material:
    """Responses of the reference to a task's prompts, as raters know them.

    Args:
        task: has a known truth.
        responses: B of them.
        prefixes: whether to judge the beginnings of each response, which takes T times as long.

    Raises:
        UsageError: the task has no known truth.
    """
    lengths = responses.lengths.numpy()
    beginnings = None
    if prefixes:
        width = responses.ids.shape[1]
        shorter = [_cut(responses, count) for count in range(width)]
        beginnings = np.stack([_attributes(task, cut) for cut in [*shorter, responses]], axis=1)
    return Material(
        attributes=_attributes(task, responses),
        weights=np.array(task.utility_weights if isinstance(task, Weighted) else (1.0,)),
        attribute_names=rated_attributes(task),
        lengths=lengths,
        prompt_lengths=responses.prompts.mask.sum(dim=1).repeat_interleave(responses.group_size).numpy(),
        sources=np.zeros(len(lengths), dtype=np.int64),
        prefixes=beginnings,
    )


def _cut(responses: Responses, count: int) -> Responses:
    keep = torch.arange(responses.ids.shape[1]) < count
    return Responses(responses.prompts, responses.ids, responses.mask & keep)


def _attributes(task: Task, responses: Responses) -> Float[np.ndarray, "B A"]:
    gold: Gold | None = task.gold(responses)
    if gold is None:
        raise UsageError(f"the task {task.name!r} has no known truth, so no simulated rater can judge its responses")
    known = gold.attributes if isinstance(task, Weighted) else gold.utility[:, None]
    return known.numpy().astype(np.float64)
