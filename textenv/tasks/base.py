"""What a task is: prompts, a budget of response tokens and, where it is known, the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textenv.responses import Prompts, Responses

Split = Literal["train", "validation", "test", "heldout"]


class Gold(NamedTuple):
    """The true judgement of B responses."""

    utility: Float[Tensor, " B"]
    """Weighted attributes in units of the reference's within-prompt standard deviation."""
    score: Float[Tensor, " B"]
    """Weighted mean of the attributes, in [0, 1]: the gold score that people read."""
    attributes: Float[Tensor, "B A"]
    """Each attribute in [0, 1], in the order of the task's `attribute_names`."""


class Task(Protocol):
    """A family of prompts and the judgement of responses to them."""

    name: str
    """As in `textenv/<Name>-v0`, in lower case."""
    description: str
    """One line for people."""
    prompt_length: int
    """P, the most tokens a prompt has."""
    response_length: int
    """T, the budget of response tokens."""
    beta: float
    """The evaluation β: the weight of the KL term in J, J* and the share."""
    reference: str
    """Name of the language model that is π_ref unless another is asked for."""
    attribute_names: tuple[str, ...]
    """Names of the gold attributes; empty where no truth is known."""
    tokenizer: PreTrainedTokenizerBase
    """Turns prompts and responses into text and back."""

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws `count` prompts of a split, as token ids."""
        ...

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The first `count` of the split's fixed list: the same for everybody, at every call."""
        ...

    def gold(self, responses: Responses) -> Gold | None:
        """The true judgement, or None where no truth is known."""
        ...


class RewardFunction(Protocol):
    """Scores whole responses: a gold score, a learned model, a rule, a sum of those."""

    name: str

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """One score for each response, higher is better."""
        ...


def text_pairs(responses: Responses, tokenizer: PreTrainedTokenizerBase) -> tuple[Sequence[str], Sequence[str]]:
    """Prompt text and response text of each row, without special tokens."""
    prompts = [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in responses.prompts.to_lists()]
    answers = [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in responses.to_lists()]
    k = responses.group_size
    return [prompts[row // k] for row in range(len(answers))], answers


def prompts_of(task: Task, prompts: Sequence[Sequence[int]]) -> Prompts:
    """Token lists as a batch padded to the task's prompt length."""
    pad_id = task.tokenizer.pad_token_id
    return Prompts.from_lists(prompts, task.tokenizer.eos_token_id if pad_id is None else pad_id, task.prompt_length)
