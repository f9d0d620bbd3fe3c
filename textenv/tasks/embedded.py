"""What the tasks of the embedded world share: words, prompts by split, the truth by a parser, and J* looked up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from textenv import models
from textenv.optimum import ImportanceSamples
from textenv.responses import Prompts, Responses
from textenv.tasks.base import Gold, Split, check_prompt, encode_words
from textenv.world.corpus import Document, sample_world_text
from textenv.world.language import Language, Written
from textenv.world.sentences import PAD, SPECIAL
from textenv.world.vocabulary import IDS, decode, encode

FIXED_SEEDS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2, "heldout": 3}
"""Seeds of the fixed prompt lists."""


class Weights(Protocol):
    """A named tuple of numbers, whose fields name a task's attributes."""

    @property
    def _fields(self) -> tuple[str, ...]: ...

    def __iter__(self) -> Iterator[float]: ...


class EmbeddedTask:
    """A task whose prompts a grammar draws and whose responses a parser reads; a subclass names the language.

    Prompts of train, validation and test never coincide. Those of "heldout" have combinations of
    words that never occur together in a training text.

    The folder holds the constants of the shipped reference: `truth.json` has the standard deviation
    that utilities are measured in, `optimum.safetensors` the samples that J* is looked up from.
    """

    name: str
    description: str
    prompt_length: int
    response_length: int
    beta: float
    reference: str
    weights: ClassVar[Weights]
    """What each attribute counts in the gold score."""
    language: Language
    """Words, grammar and parser."""
    folder: ClassVar[Path]
    tokenizer: PreTrainedTokenizerBase

    def __init__(self) -> None:
        self.attribute_names: tuple[str, ...] = self.weights._fields
        self.tokenizer = AutoTokenizer.from_pretrained(models.folder_of(self.reference))

    def sample_words(self, rng: np.random.Generator, split: Split) -> list[str]:
        """Draws a prompt of the split, special words included."""
        return self.language.sample_prompt(rng, split)

    def write(self, rng: np.random.Generator, prompt: Sequence[str]) -> Written:
        """A response as the texts have it that the reference has learned from."""
        return self.language.sample_response(rng, prompt)

    def read(self, prompt: Sequence[str], response: Sequence[str]) -> Sequence[float]:
        """The attributes of a response, each in [0, 1]; never raises."""
        return self.language.read_response(prompt, response)

    def pretraining_texts(self, count: int, rng: np.random.Generator) -> Responses:
        """Draws texts like those that the reference has learned to write from.

        What was given of a text and not learned is its prompt, the rest its response.
        """
        documents = [self.write_document(rng) for _ in range(count)]
        pad_id = IDS[PAD]
        prompts = Prompts.from_lists([encode(document.words[: document.given]) for document in documents], pad_id)
        return Responses.from_lists(
            prompts, [encode(document.words[document.given :]) for document in documents], pad_id
        )

    def write_document(self, rng: np.random.Generator) -> Document:
        """A text of the mixture that the reference has learned from: here that of all tasks."""
        return sample_world_text(rng)

    def frame(self, words: list[str]) -> list[str]:
        """Typed words with the special words around them that the task's own prompts have."""
        raise NotImplementedError

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws `count` prompts of a split, as token ids."""
        return [encode(self.sample_words(rng, split)) for _ in range(count)]

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The first `count` prompts of the split's fixed list."""
        return self.sample_prompts(split, count, np.random.default_rng(FIXED_SEEDS[split]))

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The prompt without the special words."""
        return " ".join(word for word in decode(ids) if word not in SPECIAL)

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of a typed prompt; capitals do not matter.

        Raises:
            UsageError: it is empty, too long, or has words that the reference does not know.
        """
        size = len(self.tokenizer)
        known = {word: index for word, index in IDS.items() if word not in SPECIAL and index < size}
        words = re.findall(r"[.,!?:;]|[^\s.,!?:;]+", text.lower())
        encode_words(words, known)
        return check_prompt(encode(self.frame(words)) if words else [], self.prompt_length)

    def gold(self, responses: Responses) -> Gold:
        """Attributes of each response as the parser reads them, and their weighted mean."""
        attributes = self.attributes(responses)
        score = self.gold_score(attributes)
        return Gold(score / self.deviation, score, attributes)

    def attributes(self, responses: Responses) -> Float[Tensor, "B A"]:
        """What the parser reads in each response."""
        k = responses.group_size
        prompts = [decode(prompt) for prompt in responses.prompts.to_lists()]
        rows = [self.read(prompts[row // k], decode(response)) for row, response in enumerate(responses.to_lists())]
        return torch.tensor(rows, dtype=torch.float32)

    def gold_score(self, attributes: Float[Tensor, "*B A"]) -> Float[Tensor, "*B"]:
        """The weighted mean of the attributes."""
        weights = torch.tensor(tuple(self.weights))
        return attributes @ weights / weights.sum()

    @property
    def utility_weights(self) -> tuple[float, ...]:
        """What one unit of each attribute adds to the utility, which is their weighted sum."""
        return tuple(weight / sum(self.weights) / self.deviation for weight in self.weights)

    @cached_property
    def deviation(self) -> float:
        """Pooled within-prompt standard deviation of the gold score under the shipped reference."""
        truth = json.loads((self.folder / "truth.json").read_text(encoding="utf-8"))
        return float(truth["score_deviation"])

    def importance_samples(self, count: int) -> ImportanceSamples | None:
        """Shipped samples of the first `count` fixed test prompts, or None where fewer are shipped."""
        stored = load_file(self.folder / "optimum.safetensors")
        if count > len(stored["attributes"]):
            return None
        score = self.gold_score(stored["attributes"][:count].float())
        pool = stored["pool_effective_samples"][:count]
        return ImportanceSamples(score / self.deviation, stored["log_weights"][:count], pool)
