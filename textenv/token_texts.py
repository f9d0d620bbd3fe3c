"""The text of tokens: what rewards score and what people are shown are the same.

The text of a response is what the tokenizer makes of its tokens alone, without special tokens. So a
tokenizer that leaves out the space before a text's first token (SentencePiece) leaves it out here too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids, without special tokens and with every space that they stand for."""
    # Some tokenizers would take out the spaces before punctuation, which other tokens do not have.
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; joined, this is `decode` of all of them.

    A token decoded alone may lose its space, or hold a part of a character only. So the text is cut
    where the texts of the first 1, 2, … tokens stop being its beginning: a character of several
    tokens belongs to the last of them, and a special token adds nothing.
    """
    whole = decode(tokenizer, ids)
    prefixes = [decode(tokenizer, ids[:count]) for count in range(1, len(ids))]
    ends = itertools.accumulate((_shared(whole, prefix) for prefix in prefixes), max)
    return [whole[start:end] for start, end in itertools.pairwise([0, *ends, len(whole)])] if ids else []


def shown_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """As `token_texts`, but with the names of special tokens, as in "<eos>", for people."""
    return [
        text if text or decode(tokenizer, [token]) else str(tokenizer.decode([token]))
        for text, token in zip(token_texts(tokenizer, ids), ids, strict=True)
    ]


def token_name(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """What the vocabulary calls a token; its number where the model has more tokens than the vocabulary."""
    name: object = tokenizer.convert_ids_to_tokens(token)
    return f"#{token}" if name is None else str(name)


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
