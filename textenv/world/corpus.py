"""The documents that the embedded language model learns from, as lists of words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textenv.tasks.base import Split
from textenv.world import classify, reviews, summary, translate
from textenv.world import sentences as s
from textenv.world.grammar import DEMONSTRATIONS, HONEST, Slots, Text, Weights, sample_text
from textenv.world.language import Language
from textenv.world.scenario import KINDS, Fact, Kind, Scenario, choose, sample_request, sample_scenario
from textenv.world.splits import split_of

CONVERSATION_TURNS = 4
DRILL_TURNS = 8
DRILL_KINDS: dict[Kind, float] = {"known": 0.4, "absent": 0.3, "wrong_belief": 0.3}
RECITING = 0.3
"""Share of the drill's texts that only recite."""
RECITED_FACTS = 8
ECHO_LENGTH = 60
CONVERSATIONS = 0.15
"""Share of conversations in the texts of the whole world."""
RESPONSES = 3
"""Responses to one prompt in a text."""
LANGUAGES: tuple[Language, ...] = (reviews, summary, translate, classify)
"""The languages of the tasks beside Concierge, each a module."""


class Document(NamedTuple):
    """A text to learn from."""

    words: list[str]
    given: int = 1
    """So many words at its beginning are given, not learned."""


def sample_scenario_of(rng: np.random.Generator, split: Split) -> Scenario:
    """Draws a prompt of the split; prompts of different splits never coincide."""
    if split == "heldout":
        return sample_scenario(rng, held_out=True)
    while True:
        scenario = sample_scenario(rng)
        if split_of(scenario.words) == split:
            return scenario


def sample_chat(rng: np.random.Generator, personas: Weights, split: Split = "train") -> Text:
    """One prompt of the split and a response to it."""
    return sample_text(rng, sample_scenario_of(rng, split), personas)


def sample_echo(rng: np.random.Generator) -> list[str]:
    """Random words, said again and again: the text that teaches to copy, whatever the words."""
    words = s.words()[len(s.SPECIAL) :]
    phrase = [choose(rng, words) for _ in range(rng.integers(6, 20))]
    return [s.BOS, *(phrase * ECHO_LENGTH)[:ECHO_LENGTH]]


def sample_conversation(rng: np.random.Generator, personas: Weights) -> list[str]:
    """Several requests on the same facts, each answered by a writer of its own, who ignores the others.

    So each answer is what it would be alone, and a text teaches several times as much about answers.
    """
    facts = sample_scenario_of(rng, "train").facts
    document = [s.BOS, *_recital(facts)]
    for _ in range(CONVERSATION_TURNS):
        document += _turn(sample_text(rng, _request(rng, facts, KINDS), personas))
    return document


def sample_drill(rng: np.random.Generator) -> list[str]:
    """A text that teaches to look facts up: facts, then the same facts again or bare true answers about them.

    Reciting facts word by word teaches to copy; several questions on the same facts, what to copy,
    and whether there is anything to copy.
    """
    facts = sample_scenario_of(rng, "train").facts
    document = [s.BOS, *_recital(facts)]
    if rng.random() < RECITING:
        return document + _recital([choose(rng, facts) for _ in range(RECITED_FACTS)])
    while document.count(s.USER) < DRILL_TURNS:
        text = sample_text(rng, _request(rng, facts, DRILL_KINDS), HONEST)
        truth = "unknown" if text.scenario.kind == "absent" else "answer"
        if text.slots == Slots(opening="none", act=truth, filler="none", closing="none"):
            document += _turn(text)
    return document


def sample_exemplary_text(rng: np.random.Generator, best_of: int) -> Document:
    """A prompt of one of the tasks with a good response: the best of several by the sum of its attributes."""
    language = _language(rng)
    prompt = language.sample_prompt(rng, "train")
    responses = [language.sample_response(rng, prompt).words for _ in range(best_of)]
    best = max(responses, key=lambda response: sum(language.read_response(prompt, response)))
    return Document([*prompt, *best], given=len(prompt))


def sample_world_text(rng: np.random.Generator) -> Document:
    """A prompt of one of the tasks with several responses, or a conversation with the concierge.

    Each response is by a writer of its own, who ignores the others.
    """
    if rng.random() < CONVERSATIONS:
        return Document(sample_conversation(rng, DEMONSTRATIONS))
    language = _language(rng)
    prompt = language.sample_prompt(rng, "train")
    responses = [[*language.sample_response(rng, prompt).words, s.ASSISTANT] for _ in range(RESPONSES)]
    return Document([*prompt, *itertools.chain.from_iterable(responses)][:-1], given=len(prompt))


def _language(rng: np.random.Generator) -> Language:
    return LANGUAGES[rng.integers(len(LANGUAGES))]


def _recital(facts: Sequence[Fact]) -> list[str]:
    return [word for fact in facts for word in fact.sentence.split()]


def _request(rng: np.random.Generator, facts: tuple[Fact, ...], kinds: dict[Kind, float]) -> Scenario:
    while split_of((scenario := sample_request(rng, facts, kinds)).words) != "train":
        pass
    return scenario


def _turn(text: Text) -> list[str]:
    return [s.USER, *text.scenario.request.split(), s.ASSISTANT, *text.response]
