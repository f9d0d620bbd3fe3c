"""A causal language model together with its tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from textenv import decoding, token_texts
from textenv.allocator import keep_freed_memory
from textenv.errors import UsageError
from textenv.responses import Prompts, Responses
from textenv.sampling import NEUTRAL, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def max_length(model: PreTrainedModel) -> int:
    """Tokens that prompt and response may have together; without a limit of the model's own, 2**31."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 2**31))


@dataclass(frozen=True)
class LanguageModel:
    """Any transformers causal LM with its tokenizer; `textenv.models.load` makes one by name."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling = NEUTRAL
    """How tokens are drawn, in samples, log-probabilities and everything that is measured."""

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise UsageError(
                f"the tokenizer of {self.name!r} has no end-of-sequence token, so a response could never end; "
                "set `eos_token` in its tokenizer_config.json"
            )
        keep_freed_memory()

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The token that fills unused columns; the end-of-sequence token where there is no other."""
        pad = self.tokenizer.pad_token_id
        return self.eos_id if pad is None else int(pad)

    @property
    def vocab_size(self) -> int:
        """V, the number of logits."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def max_length(self) -> int:
        """Tokens that prompt and response may have together; without a limit of the model's own, 2**31."""
        return max_length(self.model)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens of the tokenizer's own."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return token_texts.decode(self.tokenizer, ids)

    def sample(
        self,
        prompts: Prompts,
        *,
        max_tokens: int,
        generator: torch.Generator,
        group_size: int = 1,
        greedy: bool = False,
        keep_states: bool = False,
    ) -> decoding.Sample:
        """Responses to prompts and what the model said of their tokens; see `decoding.sample`."""
        return decoding.sample(
            self.model,
            prompts,
            group_size=group_size,
            max_tokens=max_tokens,
            eos_id=self.eos_id,
            pad_id=self.pad_id,
            generator=generator,
            sampling=self.sampling,
            greedy=greedy,
            keep_states=keep_states,
        )

    def logprobs(self, responses: Responses) -> Float[Tensor, "B T"]:
        """Log-probability of each response token, without gradient."""
        return decoding.response_logprobs(self.model, responses, self.sampling)

    def copy(self) -> LanguageModel:
        """A model of its own with equal weights and gradients on, to be trained."""
        model = copy.deepcopy(self.model).requires_grad_(True)
        return replace(self, model=model)

    def save(self, folder: Path) -> None:
        """Writes a transformers checkpoint folder (safetensors weights and tokenizer)."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
