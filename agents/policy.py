"""A language model as policy, alone or with a value head that says how much reward is still to come."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from textenv.decoding import Sample, predicting_states, predictions, spread, token_logprobs
from textenv.language_model import LanguageModel
from textenv.precision import Precision, numerics
from textenv.responses import Responses


class PolicyOutputs(NamedTuple):
    """What a policy with a value head says of each response token; 0 where the mask is off."""

    logprobs: Float[Tensor, "B T"]
    """Log-probability of the token, at temperature 1 like the sampling."""
    values: Float[Tensor, "B T"]
    """Reward expected from this token on, read before the token is seen."""


def rows_of(groups: Int[Tensor, " n"], group_size: int) -> Int[Tensor, " rows"]:
    """The rows that answer the prompts `groups`, in the order of `Responses.groups`."""
    return (groups[:, None] * group_size + torch.arange(group_size)).flatten()


class Actor(nn.Module):
    """A policy alone. Dropout is off: the policy that is trained is the one that samples.

    Args:
        language_model: is copied.
        precision: of the matrix products of `forward`; decoding is in float32.
    """

    def __init__(self, language_model: LanguageModel, precision: Precision) -> None:
        super().__init__()
        self.language_model = language_model.copy()
        self.precision = precision
        self.trunk = self.language_model.model.train(False)

    def forward(self, responses: Responses) -> Float[Tensor, "B T"]:
        """Log-probability of each token, 0 where the mask is off; one pass, every prompt encoded once."""
        with numerics(self.precision):
            logits = predictions(self.trunk, responses).logits
        return _logprobs(logits, responses)

    def recall(self, sample: Sample, chunks: int) -> Float[Tensor, "B T"]:
        """What `forward` would say of what this policy has just sampled: without another pass, where decoding told.

        Args:
            sample: made by the policy as it is now.
            chunks: parts of the prompts that a pass takes one after another, to bound its memory.
        """
        if self.precision == "float32":
            return sample.logprobs
        return in_parts(lambda part: (self(part),), sample.responses, chunks)[0]


class ActorCritic(nn.Module):
    """Policy and value on one trunk, or on two that start equal.

    Dropout is off: the policy that is trained is the one that samples.

    Args:
        language_model: is copied, once for each trunk.
        separate_value: whether the value has a trunk of its own.
        precision: of the matrix products of `forward`; decoding is in float32.
    """

    def __init__(self, language_model: LanguageModel, *, separate_value: bool, precision: Precision) -> None:
        super().__init__()
        self.language_model = language_model.copy()
        self.precision = precision
        self.trunk = self.language_model.model.train(False)
        self.value_trunk = language_model.copy().model.train(False) if separate_value else None
        # Made without drawing weights, which would move the global random state.
        self.value_head = nn.utils.skip_init(nn.Linear, self.trunk.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, responses: Responses) -> PolicyOutputs:
        """One pass over each sequence, every prompt encoded once for all of its responses."""
        with numerics(self.precision):
            logits, hidden = predictions(self.trunk, responses)
            if self.value_trunk is not None:
                hidden = predicting_states(self.value_trunk, responses)
        return PolicyOutputs(_logprobs(logits, responses), self._values(hidden, responses))

    @torch.no_grad()
    def recall(self, sample: Sample, chunks: int) -> PolicyOutputs:
        """What `forward` would say of what this policy has just sampled: without another pass, where decoding told.

        Args:
            sample: made by the policy as it is now, on one trunk with `keep_states`.
            chunks: parts of the prompts that a pass takes one after another, to bound its memory.
        """
        responses = sample.responses
        if self.precision != "float32":
            return PolicyOutputs(*in_parts(self, responses, chunks))
        if self.value_trunk is None:
            assert sample.hidden is not None, "values are read from the states that decoding leaves: keep_states"
            return PolicyOutputs(sample.logprobs, self._values(sample.hidden, responses))
        trunk = self.value_trunk

        def values(part: Responses) -> tuple[Tensor]:
            return (self._values(predicting_states(trunk, part), part),)

        return PolicyOutputs(sample.logprobs, *in_parts(values, responses, chunks))

    def _values(self, hidden: Float[Tensor, "n H"], responses: Responses) -> Float[Tensor, "B T"]:
        return spread(self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0], responses.mask)


def _logprobs(logits: Float[Tensor, "n V"], responses: Responses) -> Float[Tensor, "B T"]:
    return spread(token_logprobs(logits, responses.ids[responses.mask]), responses.mask)


@torch.no_grad()
def in_parts(
    outputs: Callable[[Responses], tuple[Tensor, ...]], responses: Responses, chunks: int
) -> list[Float[Tensor, "B T"]]:
    """What is said of some prompts' responses at a time, put together."""
    parts = []
    for groups in torch.arange(len(responses.prompts)).tensor_split(chunks):
        said = outputs(responses.groups(groups))
        parts.append([functional.pad(each, (0, responses.ids.shape[1] - each.shape[1])) for each in said])
    return [torch.cat(column) for column in zip(*parts, strict=True)]
