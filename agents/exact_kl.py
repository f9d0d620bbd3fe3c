"""A policy that tells how far it is from the reference, by the whole distribution in every state that it visits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.policy import Computing, drawn_from, in_parts, in_turns
from textenv.decoding import predictions, spread, token_logprobs
from textenv.kl import full_kl
from textenv.language_model import LanguageModel
from textenv.precision import numerics
from textenv.responses import Responses


class ExactKLOutputs(NamedTuple):
    """What is said of each response token; 0 where the mask is off."""

    logprobs: Float[Tensor, "B T"]
    """Log-probability of the token."""
    kl: Float[Tensor, "B T"]
    """KL(π‖π_ref) of the next-token distributions, in nats; the sum over the vocabulary, with gradient."""


class ActorWithReference(nn.Module):
    """A policy without a value head, and beside it the model that it starts as, which is not trained.

    Args:
        language_model: what is trained; it is no copy.
        reference: what the KL is to.
        computing: how `forward` goes through examples.
    """

    def __init__(self, language_model: LanguageModel, reference: LanguageModel, computing: Computing) -> None:
        super().__init__()
        self.reference = reference
        self.language_model = language_model
        self.computing = computing
        self.trunk = language_model.model.train(False)

    def forward(self, responses: Responses) -> ExactKLOutputs:
        """One pass of either model over each sequence, every prompt encoded once for all of its responses."""
        return ExactKLOutputs(*in_turns(self._outputs, self.computing.parts, responses))

    def _outputs(self, responses: Responses) -> tuple[Tensor, Tensor]:
        with numerics(self.computing.precision):
            logits = predictions(self.trunk, responses).logits
            with torch.no_grad():
                reference_logits = predictions(self.reference.model, responses).logits
        drawn = drawn_from(logits, responses, self.language_model)
        logprobs = token_logprobs(drawn, responses.ids[responses.mask])
        kl = full_kl(drawn.float(), reference_logits.float())
        return spread(logprobs, responses.mask), spread(kl, responses.mask)

    def evaluate(self, responses: Responses, chunks: int) -> ExactKLOutputs:
        """The same without gradient, `chunks` parts of the prompts at a time to bound the memory."""
        return ExactKLOutputs(*in_parts(self, responses, chunks))
