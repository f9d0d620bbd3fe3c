"""Summary-v0: a townsperson's post, and a summary that should cover its key facts, invent none and be short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from textenv import models
from textenv.tasks.base import Split
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import sentences as s
from textenv.world import summary
from textenv.world.language import Written
from textenv.world.summary import Attributes
from textenv.world.summary_sentences import TLDR


class Summary(EmbeddedTask):
    """The classic TL;DR task: say who writes and what of which places, and leave the small talk out.

    The facts of held-out prompts are combinations of place and value that training texts never have.
    """

    name = "summary"
    description = "summarise a townsperson's post: its key facts covered, none invented, short, fluent"
    prompt_length = 40
    response_length = 24
    beta = 0.1
    reference = "world"
    weights: ClassVar[Attributes] = Attributes(covered=12.0, faithful=5.0, short=6.0, fluent=2.0)
    folder = models.CHECKPOINTS / "summary"

    def sample_words(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Draws a prompt of the split: the post, and the mark that asks for a summary."""
        return summary.sample_prompt(rng, split)

    def write(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """A summary by one of several writers, careful and careless."""
        return summary.sample_response(rng, prompt)

    def read(self, prompt: Sequence[str], response: Sequence[str]) -> Attributes:
        """The attributes of a response; never raises."""
        return summary.read_response(prompt, response)

    def frame(self, words: list[str]) -> list[str]:
        """The mark that asks for a summary is added where it was not typed."""
        asked = tuple(words[-len(TLDR) :]) == TLDR
        return [s.BOS, *words, *(() if asked else TLDR), s.ASSISTANT]
