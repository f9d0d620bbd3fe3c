"""Reviews-v0: the opening of a review of a place, and a continuation that should be positive and to the point."""

from __future__ import annotations

from typing import ClassVar

from textenv import models
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import reviews
from textenv.world import sentences as s
from textenv.world.reviews import Attributes


class Reviews(EmbeddedTask):
    """The classic sentiment task: whatever the tone of the opening, praise the aspects that readers ask about.

    Held-out prompts ask about an aspect that training texts never have together with the place.
    """

    name = "reviews"
    description = "go on with a review of a place: positive, about the aspects that readers ask for, fluent"
    prompt_length = 29
    response_length = 24
    beta = 0.06
    reference = "world"
    weights: ClassVar[Attributes] = Attributes(sentiment=2.0, coverage=3.0, fluent=1.0)
    language = reviews
    folder = models.CHECKPOINTS / "reviews"

    def frame(self, words: list[str]) -> list[str]:
        """The opening begins after the first question mark."""
        cut = words.index("?") + 1 if "?" in words else len(words)
        return [s.BOS, *words[:cut], s.USER, *words[cut:], s.ASSISTANT]
