"""The documents that the embedded language model learns from, as lists of words."""

from __future__ import annotations

import zlib

import numpy as np

from textenv.tasks.base import Split
from textenv.world import sentences as s
from textenv.world.grammar import HONEST, Text, Weights, sample_text
from textenv.world.scenario import Scenario, choose, sample_scenario

DRILL_TURNS = 4
RECITED_FACTS = 8
ECHO_LENGTH = 60


def split_of(scenario: Scenario) -> Split:
    """The split that a prompt of training combinations belongs to, by a hash of its words: 80 : 10 : 10."""
    bucket = zlib.crc32(" ".join(scenario.words).encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def sample_scenario_of(rng: np.random.Generator, split: Split) -> Scenario:
    """Draws a prompt of the split; prompts of different splits never coincide."""
    if split == "heldout":
        return sample_scenario(rng, held_out=True)
    while True:
        scenario = sample_scenario(rng)
        if split_of(scenario) == split:
            return scenario


def sample_chat(rng: np.random.Generator, personas: Weights, split: Split = "train") -> Text:
    """One prompt of the split and a response to it."""
    return sample_text(rng, sample_scenario_of(rng, split), personas)


def sample_echo(rng: np.random.Generator) -> list[str]:
    """Random words, said again and again: the text that teaches to copy, whatever the words."""
    words = s.words()[len(s.SPECIAL) :]
    phrase = [choose(rng, words) for _ in range(rng.integers(6, 20))]
    return [s.BOS, *(phrase * ECHO_LENGTH)[:ECHO_LENGTH]]


def sample_drill(rng: np.random.Generator) -> list[str]:
    """A text that teaches to look facts up: facts, then the same facts again or true answers about them.

    Reciting facts word by word teaches to copy; several questions on the same facts, what to copy.
    """
    facts = sample_scenario_of(rng, "train").facts
    document = [word for fact in facts for word in fact.sentence.split()]
    if rng.random() < 0.5:
        for _ in range(RECITED_FACTS):
            document += choose(rng, facts).sentence.split()
        return [s.BOS, *document]
    for _ in range(DRILL_TURNS):
        fact = choose(rng, facts)
        request = s.RELATION[fact.relation].question.format(place=fact.place)
        turn = Scenario(facts, "known", fact.key, request=request)
        while (text := sample_text(rng, turn, HONEST)).slots.act != "answer":
            pass
        document += [s.USER, *request.split(), s.ASSISTANT, *text.response]
    return [s.BOS, *document]
