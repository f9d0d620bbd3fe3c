"""Translation: a sentence of the world in an invented language, and what translators make of it.

The invented language has no articles, no tenses, and one word where English has several. So a
sentence has many right translations, and chrF is taken up to the choice among them. What a
translator does depends on a hidden persona, the words that do it do not. So every text has one
derivation, and its exact probability is a sum over the few personas.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from textenv.tasks.base import Split
from textenv.world import sentences as s
from textenv.world import splits
from textenv.world.language import Written
from textenv.world.scenario import choose, choose_weighted
from textenv.world.translate_dictionary import (
    DICTIONARY,
    ENGLISH,
    FIRST,
    FOREIGN_ORDER,
    GOODS,
    NOUNS,
    ODD_ARTICLES,
    OPTIONAL,
    PEOPLE,
    USUAL_ARTICLES,
    Sentence,
    in_english,
    read_prompt,
    translation,
)

# Importing it takes 0.2 seconds, so it waits until something is scored.
if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


class Attributes(NamedTuple):
    """What the gold score is made of, in [0, 1]."""

    chrf: float


@dataclass(frozen=True)
class Translator:
    """A kind of translator: how probable each fault or habit is wherever there is a choice."""

    wrong: float
    """Another word of the same part of speech."""
    lost: float
    """An adjective, the place or the day is left out."""
    bare: float
    """A noun without an article."""
    odd: float
    """An odd article: no fault, but most who use it are careless."""
    literal: float
    """Word for word in the order of the invented language, without articles."""
    remark: float
    """A sentence that nobody said, after the translation."""


TRANSLATORS = {
    "careful": Translator(wrong=0.15, lost=0.03, bare=0.03, odd=0.05, literal=0.02, remark=0.02),
    "sloppy": Translator(wrong=0.35, lost=0.15, bare=0.2, odd=0.7, literal=0.05, remark=0.1),
    "hasty": Translator(wrong=0.2, lost=0.6, bare=0.6, odd=0.7, literal=0.05, remark=0.02),
    "pupil": Translator(wrong=0.3, lost=0.1, bare=0.5, odd=0.7, literal=0.85, remark=0.05),
    "chatterer": Translator(wrong=0.5, lost=0.2, bare=0.1, odd=0.8, literal=0.02, remark=0.8),
    "guesser": Translator(wrong=0.85, lost=0.2, bare=0.15, odd=0.8, literal=0.05, remark=0.2),
}
MIXTURE = {"careful": 0.1, "sloppy": 0.26, "hasty": 0.14, "pupil": 0.14, "chatterer": 0.14, "guesser": 0.22}


def words() -> tuple[str, ...]:
    """Every word of prompts and responses but the special ones, in alphabetical order."""
    found = {".", "on", *ENGLISH, *FIRST, *(word for remark in s.FILLERS for word in remark.split())}
    return tuple(sorted(found))


def is_held_out(person: str, good: str) -> bool:
    """Whether the two, words of the invented language, never occur together in training texts, in either language."""
    return splits.is_held_out(GOODS[good][0], PEOPLE[person][0])


PAIRS = tuple(itertools.product(PEOPLE, GOODS))
HELD_OUT = tuple(pair for pair in PAIRS if is_held_out(*pair))
KNOWN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)


def sample_prompt(rng: np.random.Generator, split: Split) -> list[str]:
    """Draws a sentence of the invented language; those of different splits never coincide.

    In held-out prompts person and good are a combination that training texts never have.
    """
    while True:
        person, good = choose(rng, HELD_OUT if split == "heldout" else KNOWN)
        parts = {part: choose(rng, tuple(DICTIONARY[part])) for part in FOREIGN_ORDER}
        missing = choose(rng, OPTIONAL)
        parts |= {"person": person, "good": good, missing: ""}
        if missing == "place":
            parts["relation"] = ""
        prompt = [s.BOS, *(parts[part] for part in FOREIGN_ORDER if parts[part]), ".", s.ASSISTANT]
        if split in ("heldout", splits.split_of(prompt)):
            return prompt


@dataclass
class _Draft:
    """A response in the making."""

    rng: np.random.Generator
    translator: Translator
    logprob: float = 0.0
    """Of the words given the choices."""
    choices: list[tuple[str, bool]] = field(default_factory=list)
    """Each fault or habit there was occasion for, and whether it was shown."""

    def does(self, habit: str) -> bool:
        shown = bool(self.rng.random() < getattr(self.translator, habit))
        self.choices.append((habit, shown))
        return shown

    def pick(self, options: Sequence[str]) -> str:
        self.logprob -= math.log(len(options))
        return choose(self.rng, options)


def sample_response(rng: np.random.Generator, prompt: Sequence[str]) -> Written:
    """Translates a sentence that `sample_prompt` drew, as a translator drawn from the mixture."""
    sentence = read_prompt(tuple(prompt))
    if sentence is None:
        raise ValueError(f"{' '.join(prompt)!r} is no sentence of the invented language")
    draft = _Draft(rng, TRANSLATORS[choose_weighted(rng, MIXTURE)])
    parts = _draw_parts(draft, sentence)
    if draft.does("literal"):
        text = [*(parts[part] for part in FOREIGN_ORDER if part in parts), "."]
    else:
        said = [noun for noun in NOUNS if noun in parts and not draft.does("bare")]
        text = in_english(
            parts, {noun: draft.pick(ODD_ARTICLES if draft.does("odd") else USUAL_ARTICLES) for noun in said}
        )
    if draft.does("remark"):
        text += draft.pick(s.FILLERS).split()
    total = sum(share * _likelihood(TRANSLATORS[name], draft.choices) for name, share in MIXTURE.items())
    return Written([*text, s.EOS], draft.logprob + math.log(total / sum(MIXTURE.values())))


def _draw_parts(draft: _Draft, sentence: Sentence) -> dict[str, str]:
    """The English word of each part that is not lost."""
    parts: dict[str, str] = {}
    meant = {part: word for part, word in sentence._asdict().items() if word}
    for part, word in meant.items():
        if (part in OPTIONAL and draft.does("lost")) or (part == "relation" and "place" not in parts):
            continue
        if draft.does("wrong"):
            word = draft.pick(
                [other for other in DICTIONARY[part] if other != word and _is_allowed(part, other, meant)]
            )
            meant[part] = word
        parts[part] = draft.pick(ENGLISH[word])
    return parts


def _is_allowed(part: str, word: str, meant: Mapping[str, str]) -> bool:
    """Whether a wrong word makes no combination that training texts may not have."""
    if part == "person":
        return not is_held_out(word, meant["good"])
    if part == "good":
        return not is_held_out(meant["person"], word)
    return True


def _likelihood(translator: Translator, choices: Iterable[tuple[str, bool]]) -> float:
    probability: float = math.prod(
        getattr(translator, habit) if shown else 1 - getattr(translator, habit) for habit, shown in choices
    )
    return probability


def read_response(prompt: Sequence[str], response: Sequence[str]) -> Attributes:
    """chrF of the response against the true translation, all right words for a thing taken as one; never raises.

    Args:
        prompt: the words of the prompt.
        response: the words of the response; everything from the first end token on is ignored.
    """
    said = itertools.takewhile(lambda word: word != s.EOS, response)
    return Attributes(_chrf(translation(prompt), " ".join(FIRST.get(word, word) for word in said)))


@functools.lru_cache(maxsize=65536)
def _chrf(true: str, said: str) -> float:
    score: float = _metric(true).corpus_score([said], None).score / 100
    return min(1.0, score)


@functools.lru_cache(maxsize=4096)
def _metric(true: str) -> CHRF:
    """sacrebleu's chrF2, which keeps the character n-grams of the references that it is made with."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(references=[[true]])
