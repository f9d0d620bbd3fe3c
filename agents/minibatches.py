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


class ClippedSettings(MinibatchSettings, Protocol):
    """The same of one that lets the policy go only so far from the one that sampled."""

    @property
    def clip_range(self) -> float:
        """How far from 1 a probability ratio may go and still be pushed on."""
        ...

    @property
    def stop_kl(self) -> float | None:
        """Nats a token from the policy that sampled at which no more steps are taken on the rollout."""
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


def check_clipped(config: ClippedSettings) -> None:
    """Refuses minibatches that cannot be, and limits that let the policy go nowhere.

    Raises:
        UsageError: names the setting, its value and the range.
    """
    check_minibatches(config)
    check_range(config, "clip_range", 0, low_included=False)
    if config.stop_kl is not None:
        check_range(config, "stop_kl", 0, low_included=False)


class Minibatch(NamedTuple):
    """Some of a rollout's prompts with all their responses, trimmed to the longest of them."""

    responses: Responses
    rows: Int[Tensor, " b"]
    """Where they stand in the rollout."""

    def cut(self, tensor: Tensor) -> Tensor:
        """What belongs to them of the rollout's (B, T) or (B,) numbers."""
        return tensor[self.rows] if tensor.ndim == 1 else tensor[self.rows, : self.responses.ids.shape[1]]


def minibatches(responses: Responses, config: MinibatchSettings, generator: torch.Generator) -> Iterator[Minibatch]:
    """The minibatches of all epochs: in each epoch every prompt once, in an order that the generator draws.

    Args:
        responses: of the rollout.
        config: how many epochs, and how many minibatches in each.
        generator: draws the order.
    """
    for _ in range(config.n_epochs):
        for groups in torch.randperm(len(responses.prompts), generator=generator).tensor_split(config.n_minibatches):
            yield Minibatch(responses.groups(groups), rows_of(groups, responses.group_size))


def goes_too_far(approx_kl: Tensor, config: ClippedSettings) -> bool:
    """Whether the policy has left the one that sampled by more than it may, so that the rollout is used up.

    Args:
        approx_kl: nats a token, as `PolicyLoss` has it.
        config: the agent's settings.
    """
    return config.stop_kl is not None and float(approx_kl) > config.stop_kl
