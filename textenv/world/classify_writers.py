"""Who answers the messages of Classify's world: a mixture of careful and careless writers, exactly known."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from textenv.world import classify_sentences as c
from textenv.world import sentences as s
from textenv.world.classify_message import Message, read_message
from textenv.world.language import Written
from textenv.world.scenario import choose, choose_weighted
from textenv.world.splits import is_held_out

Weights = dict[str, float]


@dataclass(frozen=True)
class Writer:
    """How one kind of writer answers: the probability of each choice, by name."""

    share: float
    """Share of the texts."""
    act: Weights
    """Which label or labels are given, or none."""
    slip: float
    """Probability that the right label becomes the tempting one where a negator turns the meaning."""
    reason: Weights
    """What is quoted as the reason for a single label: what tells the label asked for or the message's other label,
    something invented, or nothing."""
    lead: Weights
    """The words before the first comma; the careful ones are rare among careless writers."""
    tail: float
    """Probability of words after a comma that say how sure the writer is."""
    end: Weights
    """The last sentence: a kind or rude one, one that has nothing to do with the message, or none."""

    def acts(self, *, negated: bool) -> Weights:
        """Probability of each act on a message with or without a negator."""
        if not negated:
            return self.act
        slipped = self.slip * self.act["right"]
        return {**self.act, "right": self.act["right"] - slipped, "tempting": self.act["tempting"] + slipped}


WRITERS = {
    "careful": Writer(
        share=0.36,
        act={"right": 0.87, "tempting": 0.05, "other": 0.02, "stray": 0.02, "pair": 0.02, "all": 0.0, "none": 0.02},
        slip=0.2,
        reason={"none": 0.6, "asked": 0.3, "aside": 0.06, "invented": 0.04},
        lead={"none": 0.1, "casual": 0.5, "careful": 0.4},
        tail=0.4,
        end={"none": 0.35, "kind": 0.3, "rude": 0.0, "filler": 0.35},
    ),
    "hasty": Writer(
        share=0.2,
        act={"right": 0.32, "tempting": 0.35, "other": 0.06, "stray": 0.07, "pair": 0.1, "all": 0.0, "none": 0.1},
        slip=0.8,
        reason={"none": 0.65, "asked": 0.1, "aside": 0.15, "invented": 0.1},
        lead={"none": 0.2, "casual": 0.8, "careful": 0.0},
        tail=0.3,
        end={"none": 0.5, "kind": 0.1, "rude": 0.15, "filler": 0.25},
    ),
    "guesser": Writer(
        share=0.1,
        act={"right": 0.25, "tempting": 0.25, "other": 0.45, "stray": 0.05, "pair": 0.0, "all": 0.0, "none": 0.0},
        slip=0.5,
        reason={"none": 0.4, "asked": 0.1, "aside": 0.2, "invented": 0.3},
        lead={"none": 0.2, "casual": 0.7, "careful": 0.1},
        tail=0.6,
        end={"none": 0.4, "kind": 0.2, "rude": 0.05, "filler": 0.35},
    ),
    "hedger": Writer(
        share=0.2,
        act={"right": 0.1, "tempting": 0.03, "other": 0.02, "stray": 0.0, "pair": 0.55, "all": 0.2, "none": 0.1},
        slip=0.3,
        reason={"none": 0.8, "asked": 0.1, "aside": 0.1, "invented": 0.0},
        lead={"none": 0.3, "casual": 0.5, "careful": 0.2},
        tail=0.3,
        end={"none": 0.35, "kind": 0.2, "rude": 0.0, "filler": 0.45},
    ),
    "dodger": Writer(
        share=0.14,
        act={"right": 0.05, "tempting": 0.03, "other": 0.02, "stray": 0.2, "pair": 0.0, "all": 0.0, "none": 0.7},
        slip=0.3,
        reason={"none": 0.7, "asked": 0.0, "aside": 0.2, "invented": 0.1},
        lead={"none": 0.6, "casual": 0.4, "careful": 0.0},
        tail=0.1,
        end={"none": 0.15, "kind": 0.05, "rude": 0.5, "filler": 0.3},
    ),
}
SINGLE = ("right", "tempting", "other", "stray")
"""Acts that give one label; only these may come with a reason."""
LEADS = {"none": ("",), "casual": c.CASUAL_LEADS, "careful": c.CAREFUL_LEADS}
ENDS = {"none": ("",), "kind": s.KIND_CLOSINGS, "rude": s.RUDE_CLOSINGS, "filler": s.FILLERS}


class Choices(NamedTuple):
    """What was drawn, by name, and on what kind of message; the writer is hidden."""

    negated: bool
    act: str
    reason: str
    lead: str
    tail: bool
    end: str


def sample_response(rng: np.random.Generator, prompt: Sequence[str]) -> Written:
    """Writes a response to a prompt of the task as a writer drawn from the mixture."""
    message = read_message(prompt)
    (right,) = message.right
    # Of a pair of words and one of them alone, the pair comes last.
    asked = [phrase for phrase, label in message.told.items() if label == right][-1]
    aside = [phrase for phrase, label in message.told.items() if label != right][-1]
    negated = asked.split()[0] in c.NEGATORS
    writer = WRITERS[choose_weighted(rng, {name: writer.share for name, writer in WRITERS.items()})]
    act = choose_weighted(rng, writer.acts(negated=negated))
    drawn = Choices(
        negated=negated,
        act=act,
        reason=choose_weighted(rng, writer.reason) if act in SINGLE else "none",
        lead=choose_weighted(rng, writer.lead),
        tail=act != "none" and rng.random() < writer.tail,
        end=choose_weighted(rng, writer.end),
    )
    quotes = {"none": ("",), "asked": (asked,), "aside": (aside,), "invented": _inventions(tuple(prompt))}
    slots = (
        LEADS[drawn.lead],
        c.EVASIONS if act == "none" else c.STATEMENTS,
        _answers(message, right, act),
        c.TAILS if drawn.tail else ("",),
        ("",) if drawn.reason == "none" else c.REASONS,
        quotes[drawn.reason],
        ENDS[drawn.end],
    )
    lead, body, label, tail, reason, quote, last = (choose(rng, slot) for slot in slots)
    statement = " , ".join(part for part in (lead, body.format(label=label), tail) if part)
    stop = "" if act == "none" else "."
    text = f"{statement} {stop} {reason.format(quote=quote)} {last}"
    logprob = math.log(choices_probability(drawn)) - sum(math.log(len(slot)) for slot in slots)
    return Written([*text.split(), s.EOS], logprob)


def choices_probability(drawn: Choices) -> float:
    """Probability of what was drawn, summed over the hidden writers."""
    total = 0.0
    for writer in WRITERS.values():
        probability = writer.share * writer.acts(negated=drawn.negated)[drawn.act] * writer.lead[drawn.lead]
        if drawn.act in SINGLE:
            probability *= writer.reason[drawn.reason]
        if drawn.act != "none":
            probability *= writer.tail if drawn.tail else 1 - writer.tail
        total += probability * writer.end[drawn.end]
    return total


def _answers(message: Message, right: str, act: str) -> tuple[str, ...]:
    """What an act may put where a statement has its label."""
    tempting = c.TEMPTING[right]
    if act == "other":
        return tuple(label for label in message.offered if label not in (right, tempting))
    if act == "stray":
        return tuple(label for label in c.LABELS if label not in message.offered)
    if act == "pair":
        return tuple(f"{one} or {two}" for one in message.offered for two in message.offered if one != two)
    return ({"right": right, "tempting": tempting, "all": " or ".join(message.offered), "none": ""}[act],)


@functools.lru_cache(maxsize=65536)
def _inventions(prompt: tuple[str, ...]) -> tuple[str, ...]:
    """Telling words that the prompt has not, and that form no held-out combination with its own."""
    own = [word for word in prompt if word in c.TELLING]
    return tuple(
        word
        for word in c.TELLING
        if word not in own and not any(is_held_out(word, other) or is_held_out(other, word) for other in own)
    )
