"""Classify's world: prompts, answers as the texts have them, and what any answer is worth."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from textenv.world import classify_sentences as c
from textenv.world import sentences as s
from textenv.world.classify_message import Message, read_message, sample_prompt
from textenv.world.classify_sentences import words
from textenv.world.classify_writers import sample_response
from textenv.world.scenario import split_sentences

__all__ = ["Attributes", "read_response", "sample_prompt", "sample_response", "words"]

CONCISE_UP_TO = 16
"""Words up to which a response is fully concise."""
VERBOSE_FROM = 23
"""Words from which on a response is not concise at all."""


class Attributes(NamedTuple):
    """What the gold score is made of, each in [0, 1]."""

    correct: float
    """One label is given, and it is the right one."""
    valid: float
    """One label is given, and it was offered."""
    grounded: float
    """What is quoted stands in the message and tells the label that is given; half where nothing is quoted."""
    polite: float
    """A kind closing; half for neutral words, nothing for rude ones."""
    concise: float
    """The response is short, and ended."""
    fluent: float
    """Share of the words in sentences of the language that say something new."""


@dataclass(frozen=True)
class Sentence:
    """What a sentence says, as far as it is one of the language."""

    labels: tuple[str, ...] = ()
    """Those that it gives, where it is a statement."""
    quote: str = ""
    """The words that it quotes, where it is a reason."""
    known: bool = False
    """Whether it is written as the language has it, full stop and all."""


_LABEL = "|".join(c.LABELS)
_CHOICE = re.compile(rf"\b(?:{_LABEL})(?: or (?:{_LABEL}))*\b")
_STATEMENTS = frozenset(c.STATEMENTS)
_PHRASES = frozenset((*c.TELLING, *(f"{degree} {word}" for degree in c.DEGREES for word in c.DEGREED)))
_LEADS = frozenset((*c.CASUAL_LEADS, *c.CAREFUL_LEADS))
_TAILS = frozenset(c.TAILS)
_FIXED = frozenset((*c.EVASIONS, *s.FILLERS, *s.KIND_CLOSINGS, *s.RUDE_CLOSINGS))
_REASONS = [
    re.compile(re.escape(form).replace(r"\{quote\}", r"(\w+(?: \w+)?)").replace(r"\ ", " ")) for form in c.REASONS
]


@functools.lru_cache(maxsize=65536)
def read_sentence(sentence: str) -> Sentence:
    """What one sentence says; one that the language has not says nothing."""
    for reason in _REASONS:
        if match := reason.fullmatch(sentence):
            return Sentence(quote=match[1], known=match[1] in _PHRASES)
    parts = sentence.removesuffix(" .").split(" , ")
    if len(parts) > 1 and parts[0] in _LEADS:
        del parts[0]
        if " , ".join(parts) + " ." in _FIXED:
            return Sentence(known=sentence.endswith(" ."))
    if sentence in _FIXED:
        return Sentence(known=True)
    if len(parts) > 1 and parts[-1] in _TAILS:
        del parts[-1]
    body = " , ".join(parts)
    if _CHOICE.sub("{label}", body) in _STATEMENTS:
        labels = tuple(word for word in body.split() if word in c.LABELS)
        return Sentence(labels=labels, known=sentence.endswith(" .") and len({*labels}) == len(labels))
    return Sentence()


def read_response(prompt: Sequence[str], response: Sequence[str]) -> Attributes:
    """The attributes of a response to a prompt; never raises.

    Args:
        prompt: the words of the prompt.
        response: the words of the response; everything from the first end token on is ignored.
    """
    message = read_message(prompt)
    kept = list(response)
    ended = s.EOS in kept
    if ended:
        kept = kept[: kept.index(s.EOS)]
    sentences = split_sentences(kept)
    read = [read_sentence(sentence) for sentence in sentences]
    # A label counts wherever it stands, so that none can be hidden among other words.
    given = {word for word in kept if word in c.LABELS}
    stated = {label for sentence in read for label in sentence.labels}
    label = next(iter(given)) if len(given) == 1 and stated == given else None
    quotes = [sentence.quote for sentence in read if sentence.quote]
    return Attributes(
        correct=float(label in message.right),
        valid=float(label in message.offered),
        grounded=_grounded(message, label, quotes),
        polite=_polite(sentences),
        concise=min(1.0, max(0.0, (VERBOSE_FROM - len(kept)) / (VERBOSE_FROM - CONCISE_UP_TO))) if ended else 0.0,
        fluent=_fluent(sentences, read),
    )


def _grounded(message: Message, label: str | None, quotes: list[str]) -> float:
    if not quotes:
        return 0.5
    return float(label is not None and all(message.told.get(quote) == label for quote in quotes))


def _polite(sentences: Sequence[str]) -> float:
    if any(sentence in s.RUDE_CLOSINGS for sentence in sentences):
        return 0.0
    return 1.0 if any(sentence in s.KIND_CLOSINGS for sentence in sentences) else 0.5


def _fluent(sentences: list[str], read: list[Sentence]) -> float:
    """Share of the words in known sentences: one statement, one reason, and anything else once."""
    good = total = 0
    said: set[str] = set()
    for text, sentence in zip(sentences, read, strict=True):
        size = len(text.split())
        total += size
        kind = "statement" if sentence.labels else "reason" if sentence.quote else text
        if sentence.known and kind not in said:
            said.add(kind)
            good += size
    return good / total if total else 0.0
