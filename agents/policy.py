"""A language model as policy, alone or with a value head that says how much reward is still to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from textenv.decoding import Sample, predicting_states, predictions, spread, token_logprobs
from textenv.language_model import LanguageModel
from textenv.precision import Precision, numerics
from textenv.responses import Responses


class Computing(NamedTuple):
    """How a policy goes through the examples of an optimiser step."""

    precision: Precision
    """Of the matrix products of `forward`; small models draw their tokens in float32."""
    parts: int
    """Parts that the prompts are cut into; what one part leaves for the backward pass is made again there."""


class PolicyOutputs(NamedTuple):
    """What a policy with a value head says of each response token; 0 where the mask is off."""

    logprobs: Float[Tensor, "B T"]
    """Log-probability of the token, of the distribution that it is drawn from."""
    values: Float[Tensor, "B T"]
    """Reward expected from this token on, read before the token is seen."""


def rows_of(groups: Int[Tensor, " n"], group_size: int) -> Int[Tensor, " rows"]:
    """The rows that answer the prompts `groups`, in the order of `Responses.groups`."""
    return (groups[:, None] * group_size + torch.arange(group_size)).flatten()


class Actor(nn.Module):
    """A policy alone. Dropout is off: the policy that is trained is the one that samples.

    Args:
        language_model: what is trained; it is no copy.
        computing: how `forward` goes through examples.
    """

    def __init__(self, language_model: LanguageModel, computing: Computing) -> None:
        super().__init__()
        self.language_model = language_model
        self.computing = computing
        self.trunk = language_model.model.train(False)

    def forward(self, responses: Responses) -> Float[Tensor, "B T"]:
        """Log-probability of each token, 0 where the mask is off; one pass, every prompt encoded once."""
        return in_turns(lambda part: (self._logprobs(part),), self.computing.parts, responses)[0]

    def _logprobs(self, responses: Responses) -> Float[Tensor, "B T"]:
        with numerics(self.computing.precision):
            logits = predictions(self.trunk, responses).logits
        return chosen_logprobs(logits, responses, self.language_model)

    def recall(self, sample: Sample, chunks: int) -> Float[Tensor, "B T"]:
        """What `forward` would say of what this policy has just sampled: without another pass, where decoding told.

        Args:
            sample: made by the policy as it is now.
            chunks: parts of the prompts that a pass takes one after another, to bound its memory.
        """
        if self.computing.precision == "float32":
            return sample.logprobs
        return in_parts(lambda part: (self(part),), sample.responses, chunks)[0]


class ActorCritic(nn.Module):
    """Policy and value on one trunk, or on two that start equal.

    Dropout is off: the policy that is trained is the one that samples.

    Args:
        language_model: what is trained as policy; it is no copy.
        value_model: what is trained as the value's own trunk; None reads values from the policy's.
        computing: how `forward` goes through examples.
    """

    def __init__(self, language_model: LanguageModel, value_model: LanguageModel | None, computing: Computing) -> None:
        super().__init__()
        self.language_model = language_model
        self.computing = computing
        self.trunk = language_model.model.train(False)
        self.value_trunk = None if value_model is None else value_model.model.train(False)
        # Made without drawing weights, which would move the global random state.
        self.value_head = nn.utils.skip_init(nn.Linear, self.trunk.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, responses: Responses) -> PolicyOutputs:
        """One pass over each sequence, every prompt encoded once for all of its responses."""
        return PolicyOutputs(*in_turns(self._outputs, self.computing.parts, responses))

    def _outputs(self, responses: Responses) -> tuple[Tensor, Tensor]:
        with numerics(self.computing.precision):
            logits, hidden = predictions(self.trunk, responses)
            if self.value_trunk is not None:
                hidden = predicting_states(self.value_trunk, responses)
        return chosen_logprobs(logits, responses, self.language_model), self._values(hidden, responses)

    @torch.no_grad()
    def recall(self, sample: Sample, chunks: int) -> PolicyOutputs:
        """What `forward` would say of what this policy has just sampled: without another pass, where decoding told.

        Args:
            sample: made by the policy as it is now, on one trunk with `keep_states`.
            chunks: parts of the prompts that a pass takes one after another, to bound its memory.
        """
        responses = sample.responses
        if self.computing.precision != "float32":
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


def trained(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that gradients move; with adapters the model's own are frozen."""
    return [parameter for parameter in parameters if parameter.requires_grad]


def chosen_logprobs(
    logits: Float[Tensor, "n V"], responses: Responses, language_model: LanguageModel
) -> Float[Tensor, "B T"]:
    """Log-probability of each response token under the distribution that the model's tokens are drawn from."""
    drawn = drawn_from(logits, responses, language_model)
    return spread(token_logprobs(drawn, responses.ids[responses.mask]), responses.mask)


def drawn_from(
    logits: Float[Tensor, "n V"], responses: Responses, language_model: LanguageModel
) -> Float[Tensor, "n V"]:
    """Logits of that distribution; the tokens that could be drawn are those of the sampling, where it kept them."""
    allowed = None if responses.allowed is None else responses.allowed[responses.mask]
    return language_model.sampling.scaled(logits, allowed)


def in_turns(
    outputs: Callable[..., tuple[Tensor, ...]], chunks: int, *responses: Responses
) -> list[Float[Tensor, "B T"]]:
    """What is said of some prompts' responses at a time, put together; differentiable.

    Of one part at a time the backward pass makes again what it needs (Chen et al. 2016, arXiv:1604.06174).

    Args:
        outputs: takes a part of each of `responses`, and gives (B, T) tensors.
        chunks: parts of the prompts.
        responses: one batch, or several of which a response of the one belongs to that of the other.
    """
    if chunks == 1:
        return list(outputs(*responses))
    return _put_together(
        lambda *part: checkpoint(outputs, *part, use_reentrant=False, preserve_rng_state=False), chunks, *responses
    )


@torch.no_grad()
def in_parts(
    outputs: Callable[[Responses], tuple[Tensor, ...]], responses: Responses, chunks: int
) -> list[Float[Tensor, "B T"]]:
    """The same without gradient."""
    return _put_together(outputs, chunks, responses)


def _put_together(
    outputs: Callable[..., tuple[Tensor, ...]], chunks: int, *responses: Responses
) -> list[Float[Tensor, "B T"]]:
    parts, prompts, width = [], len(responses[0].prompts), responses[0].ids.shape[1]
    for groups in torch.arange(prompts).tensor_split(min(chunks, prompts)):
        said = outputs(*(each.groups(groups) for each in responses))
        parts.append([functional.pad(each, (0, width - each.shape[1])) for each in said])
    return [torch.cat(column) for column in zip(*parts, strict=True)]
