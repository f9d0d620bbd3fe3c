"""Comparisons of two responses to a prompt, as every floor passes them around, and their Parquet file."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor

from textenv.errors import TextenvError, UsageError
from textenv.files import write_atomically
from textenv.responses import Prompts, Responses
from textenv.token_texts import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS = pa.list_(pa.int32())

SCHEMA = pa.schema(
    [
        pa.field("prompt_ids", _TOKENS, nullable=False),
        pa.field("first_ids", _TOKENS, nullable=False),
        pa.field("second_ids", _TOKENS, nullable=False),
        pa.field("label", pa.float32(), nullable=False),
        pa.field("rater", pa.string(), nullable=False),
        pa.field("session_time", pa.float64(), nullable=False),
        pa.field("utility_first", pa.float32()),
        pa.field("utility_second", pa.float32()),
        pa.field("probability", pa.float32()),
        pa.field("prompt", pa.string()),
        pa.field("first", pa.string()),
        pa.field("second", pa.string()),
    ]
)
"""Columns of a preferences file, one row a comparison; the meanings are those of `Preferences`.

Token ids carry the truth and are what is read back; `prompt`, `first` and `second` are the same as
text, for people. `utility_first`, `utility_second` and `probability` are null where nobody knows them.
"""
_TEXT_COLUMNS = ("prompt", "first", "second")
_FEWEST_HELD_OUT_PROMPTS = 10


@dataclass(frozen=True)
class Preferences:
    """n comparisons of two responses to one prompt, in the order in which they were shown.

    The true utilities and the rater's probability are for measuring only: nothing that learns
    reads them.
    """

    first: Responses
    """The response shown first, one (k = 1) to each of n prompts."""
    second: Responses
    """The response shown second, to the same prompts."""
    label: Float[Tensor, " n"]
    """1.0 where the first was preferred, 0.0 where the second was, 0.5 for a tie."""
    rater: Sequence[str]
    """Who answered, n names."""
    session_time: Float[Tensor, " n"]
    """Seconds for which the rater's session had lasted when the answer came; float64."""
    utility: Float[Tensor, "n 2"]
    """True utilities of first and second; NaN where unknown."""
    probability: Float[Tensor, " n"]
    """The probability with which this rater prefers the first; NaN where unknown."""

    def __post_init__(self) -> None:
        n = len(self.label)
        sizes = {
            "first": (len(self.first.prompts), len(self.first)),
            "second": (len(self.second.prompts), len(self.second)),
            "rater": (len(self.rater),),
            "session_time": tuple(self.session_time.shape),
            "probability": tuple(self.probability.shape),
        }
        for name, size in sizes.items():
            if any(count != n for count in size):
                raise ValueError(f"{n} labels but {name} has {size}; first and second need one response a prompt")
        if self.utility.shape != (n, 2):
            raise ValueError(f"utility has shape {tuple(self.utility.shape)}, expected {(n, 2)}")
        if self.first.prompts is not self.second.prompts and (
            self.first.prompts.to_lists() != self.second.prompts.to_lists()
        ):
            raise ValueError("first and second must answer the same prompts")
        if not bool(((self.label >= 0) & (self.label <= 1)).all()):
            raise ValueError("labels must be between 0 and 1")

    @property
    def prompts(self) -> Prompts:
        """The n prompts that both responses answer."""
        return self.first.prompts

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: Int[Tensor, " m"]) -> Preferences:
        return Preferences(
            self.first.groups(index),
            self.second.groups(index),
            self.label[index],
            [self.rater[row] for row in index.tolist()],
            self.session_time[index],
            self.utility[index],
            self.probability[index],
        )

    def paired(self) -> Responses:
        """All 2n responses, the first and the second of each comparison side by side (k = 2)."""
        width = max(self.first.ids.shape[1], self.second.ids.shape[1])
        ids = torch.stack([_widen(side.ids, width) for side in (self.first, self.second)], dim=1)
        mask = torch.stack([_widen(side.mask, width) for side in (self.first, self.second)], dim=1)
        return Responses(self.prompts, ids.flatten(0, 1), mask.flatten(0, 1))

    def split(self, held_out: float, generator: torch.Generator) -> tuple[Preferences, Preferences]:
        """Splits by prompt: comparisons of one prompt are never on both sides.

        Where that would hold out fewer than 10 different prompts, which would tell little and might take
        away all that is known of a kind of prompt, it splits by pair: the same two responses to a prompt
        are never on both sides, but one of them may be.

        Args:
            held_out: share of the prompts (or pairs) that is held out, in (0, 1).
            generator: draws which.

        Returns:
            The comparisons to learn from and those held out; neither is empty.

        Raises:
            UsageError: all comparisons are of one pair.
        """
        prompts = [tuple(prompt) for prompt in self.prompts.to_lists()]
        units: list[Hashable] = list(prompts)
        if round(held_out * len(set(prompts))) < _FEWEST_HELD_OUT_PROMPTS:
            pairs = zip(prompts, self.first.to_lists(), self.second.to_lists(), strict=True)
            units = [(prompt, frozenset([tuple(first), tuple(second)])) for prompt, first, second in pairs]
        number = {unit: position for position, unit in enumerate(dict.fromkeys(units))}
        if len(number) < 2:
            raise UsageError(f"comparisons of {len(number)} pair(s) cannot be split; at least 2 pairs are needed")
        count = min(len(number) - 1, max(1, round(held_out * len(number))))
        is_held_out = torch.zeros(len(number), dtype=torch.bool)
        is_held_out[torch.randperm(len(number), generator=generator)[:count]] = True
        mask = is_held_out[torch.tensor([number[unit] for unit in units])]
        return self[(~mask).nonzero()[:, 0]], self[mask.nonzero()[:, 0]]

    def save(self, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Writes a Parquet file with the columns of `SCHEMA`; the tokenizer writes the text columns."""
        prompts, first, second = self.prompts.to_lists(), self.first.to_lists(), self.second.to_lists()
        columns = {
            "prompt_ids": prompts,
            "first_ids": first,
            "second_ids": second,
            "label": self.label.tolist(),
            "rater": list(self.rater),
            "session_time": self.session_time.tolist(),
            "utility_first": _nulls(self.utility[:, 0]),
            "utility_second": _nulls(self.utility[:, 1]),
            "probability": _nulls(self.probability),
        }
        for name, ids in zip(_TEXT_COLUMNS, (prompts, first, second), strict=True):
            columns[name] = [decode(tokenizer, row) for row in ids]
        table = pa.Table.from_pydict(columns, schema=SCHEMA)
        write_atomically(path, lambda temporary: pq.write_table(table, temporary))

    @classmethod
    def load(cls, path: Path, pad_id: int) -> Preferences:
        """Reads a file that `save` wrote, or any Parquet file with those columns.

        Raises:
            TextenvError: the file is missing, damaged or empty, lacks a column, or holds a value that cannot be.
        """
        wanted = [name for name in SCHEMA.names if name not in _TEXT_COLUMNS]
        try:
            present = pq.read_schema(path).names
            missing = [name for name in wanted if name not in present]
            if missing:
                raise TextenvError(f"{path} lacks the columns {', '.join(missing)}; a preferences file has {wanted}")
            table = pq.read_table(path, columns=wanted).cast(pa.schema([SCHEMA.field(name) for name in wanted]))
        except FileNotFoundError:
            raise TextenvError(f"there is no preferences file {path}") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise TextenvError(f"{path} cannot be read as Parquet preferences ({error}); write it again") from error
        if table.num_rows == 0:
            raise TextenvError(f"{path} holds no comparison")
        column = {name: table.column(name).to_pylist() for name in wanted}
        try:
            prompts = Prompts.from_lists(column["prompt_ids"], pad_id)
            return cls(
                Responses.from_lists(prompts, column["first_ids"], pad_id),
                Responses.from_lists(prompts, column["second_ids"], pad_id),
                torch.tensor(column["label"]),
                column["rater"],
                torch.tensor(column["session_time"], dtype=torch.float64),
                torch.stack([_values(column["utility_first"]), _values(column["utility_second"])], dim=1),
                _values(column["probability"]),
            )
        except (ValueError, TypeError) as error:
            raise TextenvError(f"{path} holds a comparison that cannot be: {error}") from error


def _widen(columns: Tensor, width: int) -> Tensor:
    """Right-pads with zeros; the mask's zeros tell that they mean nothing."""
    return torch.nn.functional.pad(columns, (0, width - columns.shape[1]))


def _nulls(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _values(column: Sequence[float | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in column])
