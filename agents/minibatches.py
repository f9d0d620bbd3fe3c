"""A rollout cut into minibatches, each for one optimiser step on whole prompts with all their responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from agents.base import check_range
from agents.policy import rows_of
from textenv.errors import UsageError
from textenv.responses import Responses


class MinibatchSettings(Protocol):
    """The settings of an agent that takes several steps on a rollout."""

    @property
    def n_prompts(self) -> int:
        """Prompts of an iteration."""
        ...

    @property
    def n_epochs(self) -> int:
        """Passes over each rollout."""
        ...

    @property
    def n_minibatches(self) -> int:
        """Optimiser steps of an epoch."""
        ...


def check_minibatches(config: MinibatchSettings) -> None:
    """Refuses epochs and minibatches that cannot be.

    Raises:
        UsageError: names the setting, its value and the range.
    """
    for field in ("n_epochs", "n_minibatches"):
        check_range(config, field, 1, integer=True)
    if config.n_minibatches > config.n_prompts:
        raise UsageError(
            f"{type(config).__name__}.n_minibatches is {config.n_minibatches}, expected at most n_prompts = "
            f"{config.n_prompts}, because the responses to a prompt stay together"
        )


class Minibatch(NamedTuple):
    """Some of a rollout's prompts with all their responses, trimmed to the longest of them."""

    responses: Responses
    rows: Int[Tensor, " b"]
    """Where they stand in the rollout."""

    def cut(self, tensor: Tensor) -> Tensor:
        """What belongs to them of the rollout's (B, T) or (B,) numbers."""
        return tensor[self.rows] if tensor.ndim == 1 else tensor[self.rows, : self.responses.ids.shape[1]]


def minibatches(responses: Responses, count: int, generator: torch.Generator) -> Iterator[Minibatch]:
    """One epoch: every prompt once, in an order that the generator draws.

    Args:
        responses: of the rollout.
        count: of minibatches, at most as many as there are prompts.
        generator: draws the order.
    """
    for groups in torch.randperm(len(responses.prompts), generator=generator).tensor_split(count):
        yield Minibatch(responses.groups(groups), rows_of(groups, responses.group_size))
