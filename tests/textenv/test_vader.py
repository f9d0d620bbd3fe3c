"""VADER as a reward."""

import importlib.util

import pytest
import torch

from textenv.errors import TextenvError
from textenv.models import load
from textenv.responses import Prompts, Responses
from textenv.vader import VaderReward

pytest.importorskip("vaderSentiment")


class Words:
    """A tokenizer whose token i is the i-th of some words."""

    words = ("", "good", "terrible", "the", "!")

    def decode(self, ids, skip_special_tokens=False, clean_up_tokenization_spaces=None):
        assert skip_special_tokens
        assert clean_up_tokenization_spaces is False
        return " ".join(self.words[i] for i in ids if i > 0)


def score(rows):
    prompts = Prompts.from_lists([[2]] * len(rows), pad_id=0)
    return VaderReward(Words())(Responses.from_lists(prompts, rows, pad_id=0))


def test_the_compound_score_of_the_response_alone():
    scores = score([[1], [2], [3], [1, 0], [3, 1]])
    assert scores.dtype == torch.float32
    # VADER's formula: the lexicon's valence s ("good" 1.9, "terrible" -2.1) as s / sqrt(s² + 15), to 4 digits.
    good, terrible = 1.9 / (1.9**2 + 15) ** 0.5, -2.1 / (2.1**2 + 15) ** 0.5
    assert torch.allclose(scores, torch.tensor([good, terrible, 0.0, good, good]), atol=1e-4)


def test_a_missing_package_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vaderSentiment" else found(name))
    with pytest.raises(TextenvError, match=r"textenv\[english\]"):
        VaderReward(load("exact").tokenizer)
