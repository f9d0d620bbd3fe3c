"""Classify-v0: a visitor's message and some labels, and an answer that should give the right one and say why."""

from __future__ import annotations

from typing import ClassVar

from textenv import models
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import classify
from textenv.world import sentences as s
from textenv.world.classify import Attributes


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
    language = classify
    folder = models.CHECKPOINTS / "classify"

    def frame(self, words: list[str]) -> list[str]:
        """The message begins after the full stop of the labels, or at once where none are given."""
        cut = words.index(".") + 1 if words[0] == "labels" and "." in words else 0
        return [s.BOS, *words[:cut], s.USER, *words[cut:], s.ASSISTANT]
