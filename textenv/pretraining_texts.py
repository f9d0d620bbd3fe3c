"""Where the texts come from that language models learn to write from: a task that knows its own, or a user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.prompt_files import read_prompts
from textenv.responses import Prompts, Responses
from textenv.tasks.text import encode_whole

MOST_TOKENS = 256
"""Of a text from a file; longer ones are cut into pieces."""


@runtime_checkable
class PretrainingTexts(Protocol):
    """Gives texts: a file of them, or a task that knows what its reference has learned to write from."""

    def pretraining_texts(self, count: int, rng: np.random.Generator) -> Responses:
        """Draws texts, each cut in two: what was given of it and not learned, as a prompt, and the rest of it."""
        ...


class TextFile:
    """The texts of a file, drawn with replacement; all of each but its first token is to be learned.

    Args:
        path: as `textenv.prompt_files.read_prompts` takes it, with a field or column called text.
        reference: whose tokenizer encodes them, with the special tokens that it puts before a text and the
            end-of-sequence token after it.

    Raises:
        UsageError: names the file and the line or row that cannot be used.
    """

    def __init__(self, path: Path, reference: LanguageModel) -> None:
        longest = min(MOST_TOKENS, reference.max_length)
        self.pieces: list[list[int]] = []
        for text in read_prompts(path, "text"):
            ids = encode_whole(text.text, reference.tokenizer).ids
            if not ids or max(ids) >= reference.vocab_size:
                raise UsageError(f"{text.where}: {reference.name!r} cannot read the text; mend or remove it")
            ids = [*ids, reference.eos_id]
            pieces = [ids[start : start + longest] for start in range(0, len(ids), longest)]
            self.pieces += [piece for piece in pieces if len(piece) > 1]
        self.pad_id = reference.pad_id

    def pretraining_texts(self, count: int, rng: np.random.Generator) -> Responses:
        """Draws pieces of texts."""
        drawn = [self.pieces[index] for index in rng.integers(len(self.pieces), size=count)]
        prompts = Prompts.from_lists([piece[:1] for piece in drawn], self.pad_id)
        return Responses.from_lists(prompts, [piece[1:] for piece in drawn], self.pad_id)
