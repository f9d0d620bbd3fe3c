"""Responses that are worth imitating, as every floor passes them around, and their Parquet file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from textenv.errors import TextenvError, UsageError
from textenv.files import write_atomically
from textenv.language_model import LanguageModel
from textenv.progress import Progress
from textenv.responses import Prompts, Responses
from textenv.tasks.base import Task
from textenv.token_texts import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS = pa.list_(pa.int32())

SCHEMA = pa.schema(
    [
        pa.field("prompt_ids", _TOKENS, nullable=False),
        pa.field("response_ids", _TOKENS, nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("response", pa.string()),
    ]
)
"""Columns of a demonstrations file. Token ids are what is read back; the rest is the same as text, for people."""

SAMPLES = 64
"""Responses of the reference of which the best one is a demonstration."""

PROMPTS_AT_ONCE = 16
"""Prompts that the reference answers at a time; bounds the memory of the cache."""


@dataclass(frozen=True)
class Demonstrations:
    """n prompts, each with one response to be imitated."""

    responses: Responses
    """One (k = 1) to each of n prompts."""

    def __post_init__(self) -> None:
        if len(self.responses) != len(self.responses.prompts):
            raise ValueError(
                f"{len(self.responses)} responses to {len(self.responses.prompts)} prompts; expected is one to each"
            )

    def __len__(self) -> int:
        return len(self.responses)

    def save(self, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Writes a Parquet file with the columns of `SCHEMA`; the tokenizer writes the text columns."""
        prompts, responses = self.responses.prompts.to_lists(), self.responses.to_lists()
        columns = {
            "prompt_ids": prompts,
            "response_ids": responses,
            "prompt": [decode(tokenizer, row) for row in prompts],
            "response": [decode(tokenizer, row) for row in responses],
        }
        table = pa.Table.from_pydict(columns, schema=SCHEMA)
        write_atomically(path, lambda temporary: pq.write_table(table, temporary))

    @classmethod
    def load(cls, path: Path, pad_id: int) -> Demonstrations:
        """Reads a file that `save` wrote, or any Parquet file with the two columns of token ids.

        Raises:
            TextenvError: the file is missing, damaged or empty, lacks a column, or holds a value that cannot be.
        """
        wanted = ["prompt_ids", "response_ids"]
        try:
            missing = [name for name in wanted if name not in pq.read_schema(path).names]
            if missing:
                raise TextenvError(f"{path} lacks the columns {', '.join(missing)}; a demonstrations file has {wanted}")
            table = pq.read_table(path, columns=wanted).cast(pa.schema([SCHEMA.field(name) for name in wanted]))
        except FileNotFoundError:
            raise TextenvError(f"there is no demonstrations file {path}") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise TextenvError(f"{path} cannot be read as Parquet demonstrations ({error}); write it again") from error
        if table.num_rows == 0:
            raise TextenvError(f"{path} holds no demonstration")
        column = {name: table.column(name).to_pylist() for name in wanted}
        try:
            prompts = Prompts.from_lists(column["prompt_ids"], pad_id)
            return cls(Responses.from_lists(prompts, column["response_ids"], pad_id))
        except (ValueError, TypeError) as error:
            raise TextenvError(f"{path} holds a demonstration that cannot be: {error}") from error


def best_demonstrations(
    task: Task,
    reference: LanguageModel,
    prompts: Prompts,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Demonstrations:
    """The best by the task's truth of `SAMPLES` responses of the reference to each prompt.

    Args:
        task: knows the truth.
        reference: answers.
        prompts: n of them.
        generator: draws the responses.
        progress: told the prompts done, all prompts, and the mean gold score of the best so far.

    Raises:
        UsageError: the task knows no truth.
    """
    best: list[list[int]] = []
    scores: list[float] = []
    for rows in torch.arange(len(prompts)).split(PROMPTS_AT_ONCE):
        responses = reference.sample(
            prompts[rows], group_size=SAMPLES, max_tokens=task.response_length, generator=generator
        ).responses
        gold = task.gold(responses)
        if gold is None:
            raise UsageError(f"the task {task.name!r} has no known truth, so nobody can tell its best responses")
        chosen = torch.arange(len(rows)) * SAMPLES + gold.score.view(-1, SAMPLES).argmax(dim=1)
        best += [responses.ids[row][responses.mask[row]].tolist() for row in chosen.tolist()]
        scores += gold.score[chosen].tolist()
        if progress is not None:
            progress(len(best), len(prompts), {"gold": sum(scores) / len(scores)})
    return Demonstrations(Responses.from_lists(prompts, best, reference.pad_id))
