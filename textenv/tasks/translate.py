"""Translate-v0: a sentence in an invented language, and a translation judged by chrF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from textenv import models
from textenv.tasks.base import Split
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import sentences as s
from textenv.world import translate
from textenv.world.language import Written
from textenv.world.translate import Attributes


class Translate(EmbeddedTask):
    """Translation in miniature: other words, another word order, and many translations that are all right.

    The gold score is sacrebleu's chrF, up to the choice among right words. Held-out prompts have a
    person and a good that never occur together in a training text.
    """

    name = "translate"
    description = "translate a sentence of an invented language into English; gold is chrF"
    prompt_length = 12
    response_length = 18
    beta = 0.18
    reference = "world"
    weights: ClassVar[Attributes] = Attributes(chrf=1.0)
    folder = models.CHECKPOINTS / "translate"

    def sample_words(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Draws a prompt of the split: a sentence of the invented language."""
        return translate.sample_prompt(rng, split)

    def write(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """A translation by one of the translators, most of whom make mistakes."""
        return translate.sample_response(rng, prompt)

    def read(self, prompt: Sequence[str], response: Sequence[str]) -> Attributes:
        """The chrF of a response; never raises."""
        return translate.read_response(prompt, response)

    def frame(self, words: list[str]) -> list[str]:
        """The full stop at the end may be left out."""
        return [s.BOS, *words, *([] if words[-1] == "." else ["."]), s.ASSISTANT]
