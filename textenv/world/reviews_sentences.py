"""What can be said in a review: aspects of a place, the adjectives that fit them, adverbs and closings.

The grammar writes with these and the parser reads with them, so the two cannot disagree about
what an opinion is.
"""

from __future__ import annotations

import functools
from typing import NamedTuple


class Group(NamedTuple):
    """Aspects of a place that the same adjectives fit."""

    aspects: tuple[str, ...]
    praise: tuple[str, ...]
    blame: tuple[str, ...]

    def fits(self, adjective: str) -> bool:
        """Whether the adjective makes sense of the group's aspects."""
        return adjective in self.praise or adjective in self.blame


GROUPS = tuple(
    Group(*(tuple(words.split()) for words in lines))
    for lines in (
        ("staff owner guides waiters", "kind friendly polite helpful cheerful patient", "rude lazy grumpy careless"),
        ("food coffee drinks meals", "tasty fresh delicious fragrant rich excellent", "stale bland sour bitter"),
        ("lobby hall rooms seats", "clean cosy tidy bright spacious comfortable", "dirty dusty dark cramped"),
        ("bill menu prices tickets", "fair cheap reasonable modest moderate affordable", "steep unfair absurd greedy"),
    )
)
GROUP_OF = {aspect: group for group in GROUPS for aspect in group.aspects}
ASPECTS = tuple(GROUP_OF)
PRAISE = tuple(word for group in GROUPS for word in group.praise)
BLAME = tuple(word for group in GROUPS for word in group.blame)


class Strength(NamedTuple):
    """Adverbs that make an opinion stronger or weaker, or turn it round; their factor multiplies its valence."""

    factor: float
    adverbs: tuple[str, ...]


STRENGTHS = {
    "strong": Strength(1.0, ("very", "really", "truly", "so", "most", "extremely", "awfully", "simply")),
    "plain": Strength(0.7, ("",)),
    "weak": Strength(0.4, ("fairly", "rather", "somewhat", "almost")),
    "turned": Strength(-0.4, ("not", "never", "hardly")),
}
_FACTORS = {adverb: strength.factor for strength in STRENGTHS.values() for adverb in strength.adverbs}

CLOSINGS = {
    "praise": (
        "we loved it",
        "go there soon",
        "what a pleasure",
        "come back soon",
        "the best in town",
        "visit it today",
    ),
    "remark": ("we came by bus", "my cousin came too", "the weather was lovely", "our visit was long", "it was late"),
    "blame": ("leave it alone", "stay away", "what a waste", "look somewhere else"),
}
_CLOSING_VALENCES = {
    closing: valence
    for kind, valence in (("praise", 1.0), ("remark", 0.0), ("blame", -1.0))
    for closing in CLOSINGS[kind]
}

ENDS = (".", "!")
JOINTS = (",", "and", *ENDS)
"""What may stand between two opinions."""

VISITS = ("we came on {day} .", "i went there on {day} .", "my visit was on {day} .", "we stayed until {day} .")
"""How an opening begins."""
LINKS = {"praise": (".", ", and"), "blame": (".", ", but")}
"""What may follow the opinion of an opening; praise goes well after each of them."""
REQUEST = "{place} review : how were the {} , the {} and the {} ?"
"""Asks for three aspects; each comes after another word, by which a small model finds it."""


def verbs(aspect: str) -> tuple[str, ...]:
    """The verbs that may stand between an aspect and its adjective, the plainest first."""
    return ("were" if aspect.endswith("s") else "was", "seemed", "looked")


class Clause(NamedTuple):
    """An opinion on an aspect or, where the aspect is empty, a closing on the whole."""

    aspect: str
    valence: float
    """From -1, blame, to 1, praise."""
    content: frozenset[str]
    """What should not come twice in a review: aspect, adverb and adjective, or the whole closing."""


@functools.lru_cache(maxsize=65536)
def read_clause(text: str) -> Clause | None:
    """What is said between two joints, or None if it is nothing of the language."""
    if text in _CLOSING_VALENCES:
        return Clause("", _CLOSING_VALENCES[text], frozenset((text,)))
    the, aspect, verb, *adverb, adjective = text.split() if 4 <= len(text.split()) <= 5 else [""] * 4
    factor = _FACTORS.get(" ".join(adverb))
    if the != "the" or aspect not in GROUP_OF or verb not in verbs(aspect) or factor is None:
        return None
    if not GROUP_OF[aspect].fits(adjective):
        return None
    sign = 1 if adjective in PRAISE else -1
    return Clause(aspect, sign * factor, frozenset((aspect, *adverb, adjective)))
