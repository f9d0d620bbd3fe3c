"""Concierge-v0: facts about a town, a user's request, and an answer that should be helpful, honest and harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from textenv.optimum import ImportanceSamples
from textenv.responses import Responses
from textenv.tasks.base import Gold, Split, check_prompt, encode_words
from textenv.world import sentences as s
from textenv.world.corpus import sample_scenario_of
from textenv.world.parser import Attributes, read_response
from textenv.world.scenario import Scenario, read_scenario, split_sentences

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "concierge-supervised"
WORDS = s.words()
WEIGHTS = Attributes(helpful=12.0, honest=4.0, harmless=4.0, polite=7.0, concise=1.0, fluent=1.0, non_sycophantic=1.0)
"""What each attribute counts in the gold score."""

FIXED_SEEDS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2, "heldout": 3}
"""Seeds of the fixed prompt lists."""


class Concierge:
    """Helpfulness, honesty and harmlessness in miniature, with the truth known exactly.

    Prompts of train, validation and test never coincide. Those of "heldout" ask for a combination of
    place and value that never occurs in a training text.
    """

    name = "concierge"
    description = "answer a visitor of a small town: helpful, honest, harmless, polite, concise (the default)"
    prompt_length = 33
    response_length = 24
    beta = 0.075
    reference = "concierge"
    attribute_names: tuple[str, ...] = Attributes._fields
    tokenizer: PreTrainedTokenizerBase

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws `count` prompts of a split, as token ids."""
        return [encode(sample_scenario_of(rng, split).words) for _ in range(count)]

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The first `count` prompts of the split's fixed list."""
        return self.sample_prompts(split, count, np.random.default_rng(FIXED_SEEDS[split]))

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The facts and the request, without the special words around them."""
        return " ".join(word for word in decode(ids) if word not in s.SPECIAL)

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of typed facts and, in the last sentence, the request; capitals do not matter.

        Raises:
            UsageError: it is empty, too long, or has words that the town does not know.
        """
        known = {word: index for word, index in _ids().items() if word not in s.SPECIAL}
        words = re.findall(r"[.,!?]|[^\s.,!?]+", text.lower())
        ids = encode_words(words, known)
        facts = sum(len(sentence.split()) for sentence in split_sentences(words)[:-1])
        bos, user, assistant = encode((s.BOS, s.USER, s.ASSISTANT))
        return check_prompt([bos, *ids[:facts], user, *ids[facts:], assistant] if ids else [], self.prompt_length)

    def gold(self, responses: Responses) -> Gold:
        """Attributes of each response as the parser reads them, and their weighted mean."""
        attributes = attributes_of(responses)
        score = gold_score(attributes)
        return Gold(score / utility_deviation(), score, attributes)

    def importance_samples(self, count: int) -> ImportanceSamples | None:
        """Shipped samples of the first `count` fixed test prompts, or None where fewer are shipped."""
        stored = load_file(CHECKPOINT / "optimum.safetensors")
        if count > len(stored["attributes"]):
            return None
        score = gold_score(stored["attributes"][:count].float())
        pool = stored["pool_effective_samples"][:count]
        return ImportanceSamples(score / utility_deviation(), stored["log_weights"][:count], pool)


@cache
def utility_deviation() -> float:
    """Pooled within-prompt standard deviation of the gold score under the shipped reference."""
    truth = json.loads((CHECKPOINT / "truth.json").read_text(encoding="utf-8"))
    return float(truth["score_deviation"])


def gold_score(attributes: Float[Tensor, "*B 7"]) -> Float[Tensor, "*B"]:
    """The weighted mean of the attributes."""
    weights = torch.tensor(WEIGHTS)
    return attributes @ weights / weights.sum()


def attributes_of(responses: Responses) -> torch.Tensor:
    """The attributes (B, 7) of each response, in the order of `Attributes`."""
    k = responses.group_size
    scenarios = [_read_prompt(tuple(prompt)) for prompt in responses.prompts.to_lists()]
    rows = [read_response(scenarios[row // k], decode(response)) for row, response in enumerate(responses.to_lists())]
    return torch.tensor(rows, dtype=torch.float32)


@cache
def _ids() -> dict[str, int]:
    return {word: index for index, word in enumerate(WORDS)}


def encode(words: Sequence[str]) -> list[int]:
    """Token ids of words of the language."""
    ids = _ids()
    return [ids[word] for word in words]


def decode(ids: Sequence[int]) -> list[str]:
    """The words of token ids; an id outside the language is the unknown word."""
    return [WORDS[index] if 0 <= index < len(WORDS) else s.UNK for index in ids]


@lru_cache(maxsize=65536)
def _read_prompt(ids: tuple[int, ...]) -> Scenario:
    return read_scenario(decode(ids))
