"""Exact-v0: so small that every response can be enumerated, and every optimum is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoTokenizer

from textenv.enumeration import all_responses
from textenv.responses import Prompts, Responses
from textenv.tasks.base import Gold, Split, check_prompt, encode_words

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "exact"
PAD, EOS = 0, 1
VOCABULARY = ("<pad>", "<eos>", "a", "b", "c", "d", "e")
PROMPTS = ("c", "a b", "d e a", "c d d")
WEIGHTS = (0.5, 0.3, 0.2)
SCORE_WEIGHT = 8.0
"""How much likelier a better answer was to be written: in nats from the worst score to the best."""


class Exact:
    """Four prompts, seven tokens, responses of at most five: 9,331 responses to each prompt.

    A prompt asks for its last letter, as many times as it has letters itself: "d e a" wants three
    times "a". A good response has just so many of them, begins and ends with the same letter, and is
    ended. None of the three can be paid token by token. The reference has learned from answers that are
    good more often than chance has it. All splits are the same four prompts: this task is for
    comparing algorithms with the truth, not for measuring generalisation.
    """

    name = "exact"
    description = "4 prompts, 7 tokens, 5 steps: every response is enumerated and the optimum is exact"
    prompt_length = 3
    response_length = 5
    beta = 0.45
    reference = "exact"
    attribute_names = ("answer", "frame", "ended")

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
        self.prompts: list[list[int]] = [[VOCABULARY.index(word) for word in text.split()] for text in PROMPTS]
        self._deviation = utility_deviation()

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws prompts with replacement, each of the four with equal probability."""
        return [list(self.prompts[index]) for index in rng.integers(len(self.prompts), size=count)]

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The four prompts in turn, again and again where more than four are asked for."""
        return [list(self.prompts[index % len(self.prompts)]) for index in range(count)]

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The prompt's letters, with spaces between them."""
        return " ".join(VOCABULARY[index] for index in ids)

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of typed letters, with spaces between them.

        Raises:
            UsageError: there are none, more than three, or others than a to e.
        """
        letters = {letter: index for index, letter in enumerate(VOCABULARY) if index not in (PAD, EOS)}
        return check_prompt(encode_words(text.split(), letters), self.prompt_length)

    def pretraining_texts(self, count: int, rng: np.random.Generator) -> Responses:
        """Draws prompts with an answer each, as those were written that the reference has learned from."""
        every, logprobs = written_answers()
        each = len(every) // len(self.prompts)
        drawn = rng.choice(len(every), size=count, p=logprobs.flatten().exp().numpy() / len(self.prompts))
        rows = torch.from_numpy(drawn)
        return Responses(every.prompts[rows // each], every.ids[rows], every.mask[rows])

    @property
    def utility_weights(self) -> tuple[float, ...]:
        """What one unit of each attribute adds to the utility, which is their weighted sum."""
        return tuple(weight / self._deviation for weight in WEIGHTS)

    def gold(self, responses: Responses) -> Gold:
        """Attributes of each response, and their weighted mean; see `attributes`."""
        attributes = attributes_of(responses)
        score = attributes @ torch.tensor(WEIGHTS)
        return Gold(score / self._deviation, score, attributes)


@cache
def utility_deviation() -> float:
    """Pooled within-prompt standard deviation of the gold score under the shipped reference, by enumeration."""
    truth = json.loads((CHECKPOINT / "truth.json").read_text(encoding="utf-8"))
    return float(truth["score_deviation"])


@cache
def written_answers() -> tuple[Responses, Float[Tensor, "N R"]]:
    """Every answer to every prompt, and the log-probability with which it was written for the reference to learn from.

    The distribution, p(y|x) ∝ 7^−|y| exp(8·score(x, y)), is an untaught writer's who is right more often than
    chance: good answers have 0.12 to 0.35 of it at each prompt, none alone more than a little.
    """
    prompts = Prompts.from_lists([[VOCABULARY.index(word) for word in text.split()] for text in PROMPTS], PAD)
    every = all_responses(prompts, vocab_size=len(VOCABULARY), max_tokens=Exact.response_length, eos_id=EOS, pad_id=PAD)
    scores = (attributes_of(every) @ torch.tensor(WEIGHTS)).double()
    chance = -every.lengths.double() * torch.tensor(float(len(VOCABULARY))).log()
    return every, torch.log_softmax((chance + SCORE_WEIGHT * scores).view(len(PROMPTS), -1), dim=1)


def attributes_of(responses: Responses) -> Float[Tensor, "B 3"]:
    """The three attributes, each in [0, 1].

    answer: 1 / (1 + |n − m|), where the prompt's last letter was wanted n times and came m times.
    frame: whether it begins and ends with the same letter, of two letters at least; a padding token
        is no letter here.
    ended: whether the end-of-sequence token came.
    """
    prompts, k = responses.prompts, responses.group_size
    asked = prompts.ids[:, -1].repeat_interleave(k)
    wanted = prompts.mask.sum(dim=1).repeat_interleave(k)
    letters = responses.mask & (responses.ids != EOS)
    came = ((responses.ids == asked[:, None]) & letters).sum(dim=1)
    answer = 1 / (1 + (came - wanted).abs())
    return torch.stack([answer, _frame(responses.ids, letters.sum(dim=1)), responses.ended(EOS).float()], dim=1)


def _frame(ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    last = ids.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    return ((ids[:, 0] == last) & (last != PAD) & (lengths > 1)).float()
