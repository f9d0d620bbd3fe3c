"""Batches of prompts and of the responses to them, as every floor passes them around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from textenv.files import write_atomically

TOKENS_AT_ONCE = 2048
"""Tokens that are read together where no gradient is wanted: what one layer hands to the next then stays in the
processor's caches, which is up to a quarter faster than three times as many at once."""


def positions_of(mask: Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """Positions that count real tokens only, so that left padding moves nothing."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


@dataclass(frozen=True)
class Prompts:
    """N prompts, left-padded so that every response starts at the same column."""

    ids: Int[Tensor, "N P"]
    mask: Bool[Tensor, "N P"]

    @classmethod
    def from_lists(cls, prompts: Sequence[Sequence[int]], pad_id: int, length: int | None = None) -> Prompts:
        """Left-pads token lists to `length` columns, by default to the longest prompt."""
        width = max(len(prompt) for prompt in prompts) if length is None else length
        ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
        mask = torch.zeros((len(prompts), width), dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            if len(prompt) > width:
                raise ValueError(f"prompt {row} has {len(prompt)} tokens, more than the {width} columns")
            if len(prompt) == 0:
                raise ValueError(f"prompt {row} is empty")
            ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
            mask[row, width - len(prompt) :] = True
        return cls(ids, mask)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Tensor | slice) -> Prompts:
        return Prompts(self.ids[index], self.mask[index])

    def repeat(self, times: int) -> Prompts:
        """Each prompt `times` times in a row."""
        return Prompts(self.ids.repeat_interleave(times, 0), self.mask.repeat_interleave(times, 0))

    def trimmed(self) -> Prompts:
        """The same prompts without the columns that are padding in every row."""
        start = int(self.mask.int().argmax(dim=1).min())
        return Prompts(self.ids[:, start:], self.mask[:, start:])

    def to_lists(self) -> list[list[int]]:
        """The token ids of each prompt, without padding."""
        return [row[keep].tolist() for row, keep in zip(self.ids, self.mask, strict=True)]


def parts_of(prompts: Prompts, response_tokens: int = 0, most: int | None = None) -> tuple[Int[Tensor, " n"], ...]:
    """Indices of prompts in order, in parts that are read together where no gradient is wanted.

    Args:
        prompts: N of them.
        response_tokens: that are read with each.
        most: prompts of a part, where something else bounds them.
    """
    fit = max(1, TOKENS_AT_ONCE // (prompts.ids.shape[1] + response_tokens))
    parts: tuple[Tensor, ...] = torch.arange(len(prompts)).split(fit if most is None else min(fit, most))
    return parts


@dataclass(frozen=True)
class Responses:
    """The same number k of responses to each of N prompts; B = N·k rows, prompt-major.

    Row i answers prompt i // k. Responses are right-padded; the mask covers the generated
    tokens, the end-of-sequence token included where there is one. Whether a column counts is
    told by the mask alone: a pad id that the policy chose itself is a token like any other.
    """

    prompts: Prompts
    ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    allowed: Bool[Tensor, "B T V"] | None = None
    """The tokens that could be drawn at each step, where that was not all of them; it goes with prompts' groups."""

    @classmethod
    def from_lists(cls, prompts: Prompts, responses: Sequence[Sequence[int]], pad_id: int) -> Responses:
        """Right-pads token lists to the longest response."""
        width = max(1, *(len(response) for response in responses))
        ids = torch.full((len(responses), width), pad_id, dtype=torch.long)
        mask = torch.zeros((len(responses), width), dtype=torch.bool)
        for row, response in enumerate(responses):
            ids[row, : len(response)] = torch.tensor(response, dtype=torch.long)
            mask[row, : len(response)] = True
        return cls(prompts, ids, mask)

    @property
    def group_size(self) -> int:
        """k, the number of responses to each prompt."""
        return len(self.ids) // len(self.prompts)

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """Generated tokens of each response."""
        return self.mask.sum(dim=1)

    def __len__(self) -> int:
        return len(self.ids)

    def ended(self, eos_id: int) -> Bool[Tensor, " B"]:
        """Whether each response ends with the end-of-sequence token."""
        last = self.ids.gather(1, (self.lengths - 1).clamp(min=0)[:, None])[:, 0]
        return (last == eos_id) & (self.lengths > 0)

    def with_end(self, eos_id: int, max_length: int) -> Responses:
        """The same responses, each ending with the end-of-sequence token: those cut off by their budget get one.

        They are for reading: what could be drawn at each step is left out.

        Args:
            eos_id: that token.
            max_length: most tokens of prompt and response together; where no place is left, it is the last one's.
        """
        unended = (~self.ended(eos_id)).nonzero()[:, 0]
        if not len(unended):
            return Responses(self.prompts, self.ids, self.mask)
        ids, mask = functional.pad(self.ids, (0, 1)), functional.pad(self.mask, (0, 1))
        room = max_length - self.prompts.mask.sum(dim=1).repeat_interleave(self.group_size)
        place = torch.minimum(self.lengths, room - 1)[unended]
        ids[unended, place] = eos_id
        mask[unended, place] = True
        return Responses(self.prompts, ids, mask)

    def groups(self, index: Int[Tensor, " n"]) -> Responses:
        """The prompts at `index` with all their responses, without columns nobody uses."""
        k = self.group_size
        rows = (index[:, None] * k + torch.arange(k)).flatten()
        ids, mask = self.ids[rows], self.mask[rows]
        width = max(1, int(mask.sum(dim=1).max()))
        allowed = None if self.allowed is None else self.allowed[rows, :width]
        return Responses(self.prompts[index].trimmed(), ids[:, :width], mask[:, :width], allowed)

    def one_of_each(self, rows: Int[Tensor, " N"]) -> Responses:
        """One response to each prompt (k = 1): the rows at `rows`, in the prompts' order."""
        allowed = None if self.allowed is None else self.allowed[rows]
        return Responses(self.prompts, self.ids[rows], self.mask[rows], allowed)

    def ungrouped(self) -> Responses:
        """The same rows, each with a prompt of its own (k = 1)."""
        return Responses(self.prompts.repeat(self.group_size), self.ids, self.mask, self.allowed)

    def to_lists(self) -> list[list[int]]:
        """The token ids of each response, without padding."""
        return [row[keep].tolist() for row, keep in zip(self.ids, self.mask, strict=True)]


def save_responses(file: Path, responses: Responses) -> None:
    """Writes prompts and responses atomically as safetensors."""
    tensors = {
        "prompt_ids": responses.prompts.ids,
        "prompt_mask": responses.prompts.mask,
        "ids": responses.ids,
        "mask": responses.mask,
    }
    write_atomically(file, lambda temporary: save_file(tensors, temporary))


def load_responses(file: Path) -> Responses:
    """Reads what `save_responses` wrote."""
    tensors = load_file(file)
    return Responses(Prompts(tensors["prompt_ids"], tensors["prompt_mask"]), tensors["ids"], tensors["mask"])
