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


BEGINNINGS_AT_ONCE = 16_384
"""Beginnings of responses that are judged at a time; bounds the memory."""


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
    """Attributes of the first 0, 1, … T tokens, those of the whole after its end, float32; None where nobody needs
    them."""

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
        prefixes: whether to judge the beginnings of each response, which takes longer by about their number.

    Raises:
        UsageError: the task has no known truth.
    """
    lengths = responses.lengths.numpy()
    return Material(
        attributes=_attributes(task, responses),
        weights=np.array(task.utility_weights if isinstance(task, Weighted) else (1.0,)),
        attribute_names=rated_attributes(task),
        lengths=lengths,
        prompt_lengths=responses.prompts.mask.sum(dim=1).repeat_interleave(responses.group_size).numpy(),
        sources=np.zeros(len(lengths), dtype=np.int64),
        prefixes=beginnings(task, responses) if prefixes else None,
    )


def beginnings(task: Task, responses: Responses) -> Float[np.ndarray, "B T+1 A"]:
    """Attributes of the first 0, 1, … T tokens of each response, those of the whole after its end.

    What several responses to a prompt begin with is judged once.
    """
    number: dict[tuple[int, int], int] = {}  # Of a beginning, by that of one token less and the token.
    row_of, count_of = list(range(0, len(responses), responses.group_size)), [0] * len(responses.prompts)
    place = np.empty((len(responses), responses.ids.shape[1] + 1), dtype=np.int64)
    for row, text in enumerate(responses.to_lists()):
        at = place[row, 0] = row // responses.group_size
        for count, token in enumerate(text, 1):
            step = int(at), token
            if step not in number:
                number[step] = len(row_of)
                row_of.append(row)
                count_of.append(count)
            at = place[row, count] = number[step]
        place[row, len(text) + 1 :] = at
    rows, counts = torch.tensor(row_of), torch.tensor(count_of)
    judged = []
    for some in torch.arange(len(rows)).split(BEGINNINGS_AT_ONCE):
        ids, mask = responses.ids[rows[some]], responses.mask[rows[some]]
        shorter = mask & (torch.arange(ids.shape[1]) < counts[some, None])
        prompts = responses.prompts[rows[some] // responses.group_size]
        judged.append(_attributes(task, Responses(prompts, ids, shorter)).astype(np.float32))
    each: Float[np.ndarray, "B T+1 A"] = np.concatenate(judged)[place]
    return each


def _attributes(task: Task, responses: Responses) -> Float[np.ndarray, "B A"]:
    gold: Gold | None = task.gold(responses)
    if gold is None:
        raise UsageError(f"the task {task.name!r} has no known truth, so no simulated rater can judge its responses")
    known = gold.attributes if isinstance(task, Weighted) else gold.utility[:, None]
    return known.numpy().astype(np.float64)
