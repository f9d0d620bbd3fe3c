"""The invented language of Translate-v0: its dictionary, its word order, and what a sentence says in English.

It says when and where first, the verb last, an adjective after its noun and `near` after its
place. It has no articles, no tenses, and one word where English has several.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from textenv.world import sentences as s


def _entries(text: str) -> dict[str, tuple[str, ...]]:
    """The English words that are right for each word of the invented language."""
    lines = [line.split() for line in text.split(",")]
    return {foreign: tuple(english) for foreign, *english in lines}


PEOPLE = _entries(
    "foras mayor, kubun baker, laga teacher, timu nurse, hete judge, duhu guard, "
    "sohu priest, nofik singer, batu farmer, kipo sailor, daho painter, biru tailor"
)
GOODS = _entries(
    "hozik bread, fudol cheese, selo tea, vovuk coffee, rebo honey, hibe maps, puke flowers, lerikun soap, "
    "vomo candles, fasi books, venas wine, fuza fish, repe apples, segu cakes, mikar toys, gigo shoes"
)
LANDMARKS = _entries(
    "lido river, tepu bridge, zifunen square, netus gate, vebi fountain, "
    "femu forest, zuben hill, nona lake, mipu beach, simu canal"
)
DAYS = _entries("nesu monday, zuze tuesday, lalor wednesday, deri thursday, sifi friday, kenu saturday, rasi sunday")
VERBS = _entries(
    "vude sells sold offers offered, dubugo buys bought orders ordered, vedupes brings brought carries carried, "
    "fakun finds found spots spotted, pamulon loses lost drops dropped, lena loves loved likes liked"
)
ADJECTIVES = _entries(
    "zote big large huge, pulu small little tiny, vamita old ancient aged, "
    "rolo strange odd curious, mosan lovely pretty charming, gerak famous noted renowned"
)
POSTPOSITIONS = _entries("ha near by beside, ko behind beyond past, su before opposite facing")
USUAL_ARTICLES = ("the", "our", "your")
ODD_ARTICLES = ("some", "their", "my")
ARTICLES = (*USUAL_ARTICLES, *ODD_ARTICLES)
"""What may stand before a noun; the invented language says nothing of it, so all are as right."""


class Sentence(NamedTuple):
    """Words of the invented language by their part; one of the optional parts is left out."""

    person: str
    verb: str
    good: str
    trait: str = ""
    """Adjective of the person, optional."""
    quality: str = ""
    """Adjective of the good, optional."""
    place: str = ""
    """Optional, together with the next."""
    relation: str = ""
    day: str = ""
    """Optional."""


DICTIONARY: dict[str, dict[str, tuple[str, ...]]] = {
    "person": PEOPLE,
    "verb": VERBS,
    "good": GOODS,
    "trait": ADJECTIVES,
    "quality": ADJECTIVES,
    "place": LANDMARKS,
    "relation": POSTPOSITIONS,
    "day": DAYS,
}
"""The words of each part of a sentence."""
ENGLISH = {foreign: english for group in DICTIONARY.values() for foreign, english in group.items()}
FIRST = {word: english[0] for english in (*ENGLISH.values(), ARTICLES) for word in english}
"""The word that stands for all that are as right."""
FOREIGN_ORDER = ("day", "place", "relation", "person", "trait", "good", "quality", "verb")
OPTIONAL = ("trait", "quality", "place", "day")
NOUNS = {"person": "trait", "good": "quality", "place": ""}
"""The parts that have an article, each with the part of its adjective."""


@functools.lru_cache(maxsize=65536)
def read_prompt(prompt: tuple[str, ...]) -> Sentence | None:
    """The sentence of a prompt, or None if it has none that the invented language allows."""
    left = [word for word in prompt if word not in s.SPECIAL]
    parts = {part: left.pop(0) for part in FOREIGN_ORDER if left and left[0] in DICTIONARY[part]}
    whole = {"person", "good", "verb"} <= set(parts) and ("place" in parts) == ("relation" in parts)
    return Sentence(**parts) if whole and left == ["."] else None


def translation(prompt: Sequence[str]) -> str:
    """The true translation, the first word taken where several are right; word for word if it is no sentence."""
    return _translation(tuple(prompt))


@functools.lru_cache(maxsize=65536)
def _translation(prompt: tuple[str, ...]) -> str:
    sentence = read_prompt(prompt)
    if sentence is None:
        return " ".join(ENGLISH.get(word, (word,))[0] for word in prompt if word not in s.SPECIAL)
    parts = {part: ENGLISH[word][0] for part, word in sentence._asdict().items() if word}
    return " ".join(in_english(parts, dict.fromkeys(NOUNS, ARTICLES[0])))


def in_english(parts: Mapping[str, str], articles: Mapping[str, str]) -> list[str]:
    """The English words of a sentence, by part, in English order."""

    def phrase(noun: str) -> list[str]:
        return [articles.get(noun, ""), parts.get(NOUNS[noun], ""), parts[noun]]

    found = [*phrase("person"), parts["verb"], *phrase("good")]
    found += [parts["relation"], *phrase("place")] if "place" in parts else []
    found += ["on", parts["day"]] if "day" in parts else []
    return [word for word in (*found, ".") if word]
