"""What a task is: prompts, a budget of response tokens and, where it is known, the truth."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from torch import Tensor

from textenv.errors import UsageError
from textenv.responses import Prompts, Responses
from textenv.token_texts import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Split = Literal["train", "validation", "test", "heldout"]

FEW_WORDS = 12
"""Up to so many, all words of a language are named where one is not known."""


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

    def prompt_text(self, ids: Sequence[int]) -> str:
        """A prompt as people read and type it, without what the model needs around it."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of a prompt that people typed: those of the task's own prompts from their `prompt_text`.

        Raises:
            UsageError: it is empty, too long, or has words that the task does not know.
        """
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
    """Prompt text and response text of each row, as `textenv.token_texts.decode` makes them of the tokens."""
    prompts = [decode(tokenizer, ids) for ids in responses.prompts.to_lists()]
    answers = [decode(tokenizer, ids) for ids in responses.to_lists()]
    k = responses.group_size
    return [prompts[row // k] for row in range(len(answers))], answers


def encode_words(words: Sequence[str], known: Mapping[str, int]) -> list[int]:
    """Token ids of a prompt's words, for languages of one token a word.

    Raises:
        UsageError: names the words that are not known, and those that are like them.
    """
    strange = [word for word in dict.fromkeys(words) if word not in known]
    if not strange:
        return [known[word] for word in words]
    near = dict.fromkeys(like for word in strange for like in difflib.get_close_matches(word, known))
    if near:
        hint = f"like {'it' if len(strange) == 1 else 'them'} are {', '.join(near)}"
    elif len(known) <= FEW_WORDS:
        hint = f"it knows {', '.join(known)}"
    else:
        hint = f"it knows {len(known)} words, those of its own prompts among them"
    raise UsageError(f"the task does not know {', '.join(map(repr, strange))}; {hint}")


def check_prompt(ids: list[int], prompt_length: int, text: str = "") -> list[int]:
    """The ids, where they make a prompt.

    Raises:
        UsageError: there are none, or more than `prompt_length`; it names the prompt by its `text`.
    """
    if not ids:
        raise UsageError("the prompt is empty; type some words")
    if len(ids) > prompt_length:
        which = f"the prompt {text!r}" if text else "the prompt"
        raise UsageError(f"{which} has {len(ids)} tokens, more than the {prompt_length} of the task; shorten it")
    return ids


def prompts_of(task: Task, prompts: Sequence[Sequence[int]]) -> Prompts:
    """Token lists as a batch padded to the task's prompt length.

    Raises:
        UsageError: one has no tokens, or more than the task's prompt length; it names the prompt.
    """
    for number, ids in enumerate(prompts):
        if not 1 <= len(ids) <= task.prompt_length:
            raise UsageError(
                f"prompt {number} of the task {task.name!r}, {task.prompt_text(ids)!r}, has {len(ids)} tokens; "
                f"expected are 1 to {task.prompt_length}"
            )
    pad_id = task.tokenizer.pad_token_id
    return Prompts.from_lists(prompts, task.tokenizer.eos_token_id if pad_id is None else pad_id, task.prompt_length)
