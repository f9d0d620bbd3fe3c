"""Reviews-v0: the opening of a review of a place, and a continuation that should be positive and to the point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from textenv import models
from textenv.tasks.base import Split
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import reviews
from textenv.world import sentences as s
from textenv.world.language import Written
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
    folder = models.CHECKPOINTS / "reviews"

    def sample_words(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Draws a prompt of the split: the place and what is asked about it, then the opening."""
        return reviews.sample_prompt(rng, split)

    def write(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """A continuation by one of the personas, who like the place more or less as the opening does."""
        return reviews.sample_response(rng, prompt)

    def read(self, prompt: Sequence[str], response: Sequence[str]) -> Attributes:
        """The attributes of a response; never raises."""
        return reviews.read_response(prompt, response)

    def frame(self, words: list[str]) -> list[str]:
        """The opening begins after the first question mark."""
        cut = words.index("?") + 1 if "?" in words else len(words)
        return [s.BOS, *words[:cut], s.USER, *words[cut:], s.ASSISTANT]
