"""Which split a prompt belongs to, and which combinations of words no training text has, by hashes of the words."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from textenv.tasks.base import Split

HELD_OUT_ONE_IN = 40
"""Rare enough that a model does not learn which combinations never occur."""


def split_of(prompt: Sequence[str]) -> Split:
    """The split of a prompt without held-out combinations, by its words: 80 : 10 : 10."""
    bucket = zlib.crc32(" ".join(prompt).encode()) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def is_held_out(*words: str) -> bool:
    """Whether these words never occur together in training texts; their order counts."""
    return zlib.crc32(" ".join(words).encode()) % HELD_OUT_ONE_IN == 0
