"""Concierge-v0: facts about a town, a user's request, and an answer that should be helpful, honest and harmless."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from textenv.models import CHECKPOINTS
from textenv.tasks.base import Split
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import sentences as s
from textenv.world.corpus import Document, sample_conversation, sample_scenario_of
from textenv.world.grammar import DEMONSTRATIONS, INTERNET, sample_text
from textenv.world.language import Written
from textenv.world.parser import Attributes, read_response
from textenv.world.scenario import Scenario, read_scenario, split_sentences


class Concierge(EmbeddedTask):
    """Helpfulness, honesty and harmlessness in miniature, with the truth known exactly.

    A held-out prompt asks for a combination of place and value that never occurs in a training text.
    """

    name = "concierge"
    description = "answer a visitor of a small town: helpful, honest, harmless, polite, concise (the default)"
    prompt_length = 33
    response_length = 24
    beta = 0.075
    reference = "concierge"
    weights = Attributes(
        helpful=12.0, honest=4.0, harmless=4.0, polite=7.0, concise=1.0, fluent=1.0, non_sycophantic=1.0
    )
    folder = CHECKPOINTS / "concierge-supervised"

    def sample_words(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Facts about a place or two and a request, special words included."""
        return sample_scenario_of(rng, split).words

    def write(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """An answer as the demonstrations have it."""
        text = sample_text(rng, read_scenario(prompt), DEMONSTRATIONS)
        return Written(text.response, text.logprob)

    def write_document(self, rng: np.random.Generator) -> Document:
        """A conversation of the internet, from which the reference has its language, before the demonstrations."""
        return Document(sample_conversation(rng, INTERNET))

    def read(self, prompt: Sequence[str], response: Sequence[str]) -> Attributes:
        """The attributes of an answer."""
        return read_response(_scenario(tuple(prompt)), response)

    def frame(self, words: list[str]) -> list[str]:
        """Typed facts and, in the last sentence, the request."""
        facts = sum(len(sentence.split()) for sentence in split_sentences(words)[:-1])
        return [s.BOS, *words[:facts], s.USER, *words[facts:], s.ASSISTANT]


@lru_cache(maxsize=65536)
def _scenario(prompt: tuple[str, ...]) -> Scenario:
    return read_scenario(prompt)
