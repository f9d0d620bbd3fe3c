"""The words of all the world's languages, one token each.

Those of Concierge come first, so that its ids are the same in every model.
"""

from __future__ import annotations

from collections.abc import Sequence

from textenv.world import classify, reviews, sentences, summary, translate

WORDS: tuple[str, ...] = (
    *sentences.words(),
    *sorted({*reviews.words(), *summary.words(), *translate.words(), *classify.words()} - {*sentences.words()}),
)
"""Every token; the special ones come first."""

IDS: dict[str, int] = {word: index for index, word in enumerate(WORDS)}
"""The token id of each word."""


def encode(words: Sequence[str]) -> list[int]:
    """Token ids of words of the world."""
    return [IDS[word] for word in words]


def decode(ids: Sequence[int]) -> list[str]:
    """The words of token ids; an id outside the world is the unknown word."""
    return [WORDS[index] if 0 <= index < len(WORDS) else sentences.UNK for index in ids]
