"""What agents that learn from comparisons share: the settings of their losses, and data as a checkpoint keeps it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from agents.base import check_choice, check_range
from agents.functional.preference_losses import PairLoss
from textenv.actions import check_responses
from textenv.errors import UsageError
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses
from textenv.vector_env import TextVectorEnv


class PairLossSettings(Protocol):
    """The settings of an agent that learns by one of the losses for comparisons."""

    @property
    def loss(self) -> PairLoss:
        """Which loss."""
        ...

    @property
    def label_smoothing(self) -> float:
        """Share of the labels that are held to be wrong."""
        ...


def check_pair_loss(config: PairLossSettings) -> None:
    """Refuses an unknown loss, and a label smoothing that it has no use for, or lacks.

    Raises:
        UsageError: names the settings and what goes together.
    """
    check_choice(config, "loss", PairLoss)
    check_range(config, "label_smoothing", 0, 0.5)
    smoothing, name = config.label_smoothing, f"{type(config).__name__}.label_smoothing is {config.label_smoothing:g}"
    if smoothing == 0.5:
        raise UsageError(f"{name}, so that a label would tell nothing; expected is a number below 0.5")
    if config.loss == "robust" and smoothing == 0:
        raise UsageError(f"{name}, with which the loss 'robust' is 'sigmoid'; give the share of wrong labels")
    if config.loss in ("ipo", "hinge") and smoothing > 0:
        raise UsageError(f"{name}, but the loss {config.loss!r} has none; leave it 0, or take 'sigmoid' or 'robust'")


class Comparisons(NamedTuple):
    """What may be learned from of n comparisons."""

    pairs: Responses
    """The first and the second response of each, side by side (k = 2)."""
    label: Float[Tensor, " n"]
    """The probability that the first wins."""

    @classmethod
    def of(cls, data: Any, env: TextVectorEnv, agent: str) -> Comparisons:
        """The comparisons of an agent's `data`.

        Raises:
            UsageError: it holds none, or some that the environment's reference cannot read.
        """
        if not isinstance(data, Preferences) or not len(data):
            found = "none" if isinstance(data, Preferences) else f"a {type(data).__name__}"
            raise UsageError(
                f"{agent} learns from comparisons, got {found}; give textenv.preferences.Preferences as `data`"
            )
        pairs = data.paired()
        check_readable(pairs, env, "comparison")
        return cls(pairs, data.label.float())

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of them."""
        return response_tensors(self.pairs) | {"data.label": self.label}


def preferences_of(tensors: dict[str, Tensor]) -> Preferences:
    """The comparisons of a checkpoint, with what nobody who learns may read left unknown."""
    pairs, label = responses_of(tensors), tensors["data.label"]
    unknown = torch.full(label.shape, torch.nan)
    return Preferences(
        Responses(pairs.prompts, pairs.ids[0::2], pairs.mask[0::2]),
        Responses(pairs.prompts, pairs.ids[1::2], pairs.mask[1::2]),
        label,
        rater=["unknown"] * len(label),
        session_time=unknown.double(),
        utility=unknown[:, None].expand(-1, 2),
        probability=unknown,
    )


def response_tensors(responses: Responses) -> dict[str, Tensor]:
    """Prompts and responses under the names that a checkpoint has for an agent's data."""
    return {
        "data.prompt_ids": responses.prompts.ids,
        "data.prompt_mask": responses.prompts.mask,
        "data.ids": responses.ids,
        "data.mask": responses.mask,
    }


def responses_of(tensors: dict[str, Tensor]) -> Responses:
    """What `response_tensors` named."""
    prompts = Prompts(tensors["data.prompt_ids"], tensors["data.prompt_mask"])
    return Responses(prompts, tensors["data.ids"], tensors["data.mask"])


def check_readable(responses: Responses, env: TextVectorEnv, what: str) -> None:
    """Refuses data that the environment's reference cannot read.

    Args:
        responses: k of them to each prompt.
        env: what the agent learns in.
        what: what messages call a prompt with its responses.

    Raises:
        UsageError: names the prompt and what is wrong with it.
    """
    reference, prompts, k = env.reference, responses.prompts, responses.group_size
    check_responses(responses, reference.vocab_size, env.task.response_length, lambda row: f"{what} {row // k}")
    longest = reference.max_length - env.task.response_length
    unread = (prompts.mask & ((prompts.ids < 0) | (prompts.ids >= reference.vocab_size))).any(dim=1)
    for row in (unread | (prompts.mask.sum(dim=1) > longest)).nonzero()[:1, 0].tolist():
        raise UsageError(
            f"{what} {row}: the reference {reference.name!r} does not read the prompt; expected are at most "
            f"{longest} tokens from 0 to {reference.vocab_size - 1}"
        )
