"""VADER's sentiment of English text as a reward (Hutto & Gilbert, ICWSM 2014)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from textenv.errors import TextenvError
from textenv.responses import Responses
from textenv.token_texts import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class VaderReward:
    """The compound score of each response, from -1 (all negative) to 1 (all positive).

    Only the response is judged, not its prompt; one without any word of VADER's lexicon has 0.
    """

    name = "vader"

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if importlib.util.find_spec("vaderSentiment") is None:
            raise TextenvError('the reward "vader" needs the package vaderSentiment: pip install "textenv[english]"')
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyzer = SentimentIntensityAnalyzer()
        self._tokenizer = tokenizer

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """The compound score of each response's text."""
        texts = [decode(self._tokenizer, ids) for ids in responses.to_lists()]
        return torch.tensor([self._analyzer.polarity_scores(text)["compound"] for text in texts])
