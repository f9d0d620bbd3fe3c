"""What every language of the world is: words, prompts, and responses with how likely they were to be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from textenv.tasks.base import Split


class Written(NamedTuple):
    """A response that a grammar wrote to a prompt."""

    words: list[str]
    """The end token last."""
    logprob: float
    """Exact log-probability of the response given the prompt, in nats, hidden choices summed out."""


class Language(Protocol):
    """A module with the words, the grammar and the parser of one task."""

    def words(self) -> tuple[str, ...]:
        """Every word of prompts and responses, without the special tokens."""
        ...

    def sample_prompt(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Draws a prompt of the split, special tokens included."""
        ...

    def sample_response(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """Draws a response as the texts have it."""
        ...

    def read_response(self, prompt: Sequence[str], response: Sequence[str]) -> tuple[float, ...]:
        """The attributes of any response, each in [0, 1]."""
        ...
