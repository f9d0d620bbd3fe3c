"""Summary-v0: a townsperson's post, and a summary that should cover its key facts, invent none and be short."""

from __future__ import annotations

from typing import ClassVar

from textenv import models
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import sentences as s
from textenv.world import summary
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
    language = summary
    folder = models.CHECKPOINTS / "summary"

    def frame(self, words: list[str]) -> list[str]:
        """The mark that asks for a summary is added where it was not typed."""
        asked = tuple(words[-len(TLDR) :]) == TLDR
        return [s.BOS, *words, *(() if asked else TLDR), s.ASSISTANT]
