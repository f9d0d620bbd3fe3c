"""Translate-v0: a sentence in an invented language, and a translation judged by chrF."""

from __future__ import annotations

from typing import ClassVar

from textenv import models
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import sentences as s
from textenv.world import translate
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
    language = translate
    folder = models.CHECKPOINTS / "translate"

    def frame(self, words: list[str]) -> list[str]:
        """The full stop at the end may be left out."""
        return [s.BOS, *words, *([] if words[-1] == "." else ["."]), s.ASSISTANT]
