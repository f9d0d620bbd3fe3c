"""A language model as policy, alone or with a value head that says how much reward is still to come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from textenv.decoding import predicting_states, predictions, spread
from textenv.language_model import LanguageModel
from textenv.responses import Responses


class ActorOutputs(NamedTuple):
    """What a policy without a value head says of each response token; 0 where the mask is off."""

    logprobs: Float[Tensor, "B T"]
    """Log-probability of the token, at temperature 1 like the sampling."""
    entropy: Float[Tensor, "B T"]
    """Entropy of the full next-token distribution in nats, without gradient."""


class PolicyOutputs(NamedTuple):
    """What a policy with a value head says of each response token; 0 where the mask is off."""

    logprobs: Float[Tensor, "B T"]
    """Log-probability of the token, at temperature 1 like the sampling."""
    values: Float[Tensor, "B T"]
    """Reward expected from this token on, read before the token is seen."""
    entropy: Float[Tensor, "B T"]
    """Entropy of the full next-token distribution in nats, without gradient."""


def rows_of(groups: Int[Tensor, " n"], group_size: int) -> Int[Tensor, " rows"]:
    """The rows that answer the prompts `groups`, in the order of `Responses.groups`."""
    return (groups[:, None] * group_size + torch.arange(group_size)).flatten()


class Actor(nn.Module):
    """A policy alone. Dropout is off: the policy that is trained is the one that samples."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model.copy()
        self.trunk = self.language_model.model.train(False)

    def forward(self, responses: Responses) -> ActorOutputs:
        """One pass over each sequence, every prompt encoded once for all of its responses."""
        return ActorOutputs(*_chosen_and_entropy(predictions(self.trunk, responses).logits, responses))

    @torch.no_grad()
    def evaluate(self, responses: Responses, chunks: int) -> ActorOutputs:
        """The same without gradient, `chunks` parts of the prompts at a time to bound the memory."""
        whole = ActorOutputs(*(torch.zeros(responses.ids.shape) for _ in ActorOutputs._fields))
        _fill(whole, self, responses, chunks)
        return whole


class ActorCritic(nn.Module):
    """Policy and value on one trunk, or on two that start equal.

    Dropout is off: the policy that is trained is the one that samples.
    """

    def __init__(self, language_model: LanguageModel, *, separate_value: bool) -> None:
        super().__init__()
        self.language_model = language_model.copy()
        self.trunk = self.language_model.model.train(False)
        self.value_trunk = language_model.copy().model.train(False) if separate_value else None
        # Made without drawing weights, which would move the global random state.
        self.value_head = nn.utils.skip_init(nn.Linear, self.trunk.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, responses: Responses) -> PolicyOutputs:
        """One pass over each sequence, every prompt encoded once for all of its responses."""
        logits, hidden = predictions(self.trunk, responses)
        if self.value_trunk is not None:
            hidden = predicting_states(self.value_trunk, responses)
        values = self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0]
        chosen, entropy = _chosen_and_entropy(logits, responses)
        return PolicyOutputs(chosen, spread(values, responses.mask), entropy)

    @torch.no_grad()
    def evaluate(self, responses: Responses, chunks: int) -> PolicyOutputs:
        """The same without gradient, `chunks` parts of the prompts at a time to bound the memory."""
        whole = PolicyOutputs(*(torch.zeros(responses.ids.shape) for _ in PolicyOutputs._fields))
        _fill(whole, self, responses, chunks)
        return whole


def _chosen_and_entropy(logits: Float[Tensor, "n V"], responses: Responses) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token, and the entropy of the distribution that it was drawn from, (B, T)."""
    mask = responses.mask
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, responses.ids[mask][:, None])[:, 0]
    with torch.no_grad():
        # A token that is impossible adds nothing, and not 0·(-inf).
        entropy = -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(dim=-1)
    return spread(chosen, mask), spread(entropy, mask)


def _fill(whole: Iterable[Tensor], policy: Actor | ActorCritic, responses: Responses, chunks: int) -> None:
    """Writes what the policy says into (B, T) tensors of zeros, in the order of its outputs."""
    for groups in torch.arange(len(responses.prompts)).tensor_split(chunks):
        rows = rows_of(groups, responses.group_size)
        for target, part in zip(whole, policy(responses.groups(groups)), strict=True):
            target[rows, : part.shape[1]] = part
