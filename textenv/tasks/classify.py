"""Classify-v0: a visitor's message and some labels, and an answer that should give the right one and say why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from textenv import models
from textenv.tasks.base import Split
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import classify
from textenv.world import sentences as s
from textenv.world.classify import Attributes
from textenv.world.language import Written


class Classify(EmbeddedTask):
    """What a message wants, or what it is about: the labels that are offered say which is asked.

    Several labels are as wrong as none. Held-out prompts have a topic word and an intent word that
    never occur together in a training text.
    """

    name = "classify"
    description = "give a message the one right label of those offered, quote what tells it, politely"
    prompt_length = 36
    response_length = 24
    beta = 0.095
    reference = "world"
    weights: ClassVar[Attributes] = Attributes(
        correct=10.0, valid=1.0, grounded=5.0, polite=4.0, concise=2.0, fluent=1.0
    )
    folder = models.CHECKPOINTS / "classify"

    def sample_words(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Draws a prompt of the split: the labels, then the message."""
        return classify.sample_prompt(rng, split)

    def write(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """An answer by one of the writers, of whom few are careful."""
        return classify.sample_response(rng, prompt)

    def read(self, prompt: Sequence[str], response: Sequence[str]) -> Attributes:
        """The attributes of a response; never raises."""
        return classify.read_response(prompt, response)

    def frame(self, words: list[str]) -> list[str]:
        """The message begins after the full stop of the labels, or at once where none are given."""
        cut = words.index(".") + 1 if words[0] == "labels" and "." in words else 0
        return [s.BOS, *words[:cut], s.USER, *words[cut:], s.ASSISTANT]
