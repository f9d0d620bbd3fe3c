"""Which tokens a response may have, for agents that take action masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from textenv.language_model import LanguageModel


def allowed_tokens(language_model: LanguageModel) -> npt.NDArray[np.bool_]:
    """Which of the V actions are words, parts of words or the end: the same ones in every state.

    Forbidden are the padding, every special token but the end-of-sequence token, and ids that a model
    has beyond its tokenizer's vocabulary.

    Returns:
        Booleans (V,).
    """
    tokenizer = language_model.tokenizer
    # Tokens that were added as special ones may have no name, and only the named are in `all_special_ids`.
    added = [token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special]
    allowed = np.zeros(language_model.vocab_size, dtype=np.bool_)
    allowed[[token for token in tokenizer.get_vocab().values() if token < len(allowed)]] = True
    allowed[[token for token in (*tokenizer.all_special_ids, *added) if token < len(allowed)]] = False
    allowed[language_model.eos_id] = True
    return allowed
