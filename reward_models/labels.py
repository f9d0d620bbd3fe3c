"""Labels as they were given: who answered what, when, and in which position; and their Parquet file.

One row is one answer of one rater about one item, an item being a pair of responses to a prompt whichever is
shown first. What the answers of several raters to an item come to is for others to say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Shaped

from textenv.errors import TextenvError
from textenv.files import write_atomically

SCHEMA = pa.schema(
    [
        pa.field("item", pa.int64(), nullable=False),
        pa.field("rater", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("label", pa.float32()),
        pa.field("swapped", pa.bool_(), nullable=False),
        pa.field("session", pa.int32(), nullable=False),
        pa.field("session_time", pa.float64(), nullable=False),
        pa.field("first_length", pa.int32(), nullable=False),
        pa.field("second_length", pa.int32(), nullable=False),
        pa.field("first_source", pa.string()),
        pa.field("second_source", pa.string()),
        pa.field("utility_first", pa.float32()),
        pa.field("utility_second", pa.float32()),
        pa.field("gold", pa.bool_(), nullable=False),
        pa.field("gold_answer", pa.float32()),
    ]
)
"""Columns of a labels file, one row an answer; the meanings are those of `Labels`, NaN and None are null."""

Text = Shaped[np.ndarray, " n"]
"""Strings, or None where there is none, in an array of dtype object."""

ROWS_NAMED = 5
"""Up to so many wrong rows are named in a message."""


@dataclass(frozen=True)
class Labels:
    """n answers, in the order in which they were given.

    First and second are those of the order in which the rater saw them; `item_label` turns the answers to
    the order of the item.

    Raises:
        ValueError: the arrays differ in length.
    """

    item: Int[np.ndarray, " n"]
    """The identity of the pair, irrespective of the order shown; int64."""
    rater: Text
    """Who answered."""
    group: Text
    """Of whom the rater is one, or None."""
    label: Float[np.ndarray, " n"]
    """1 where the first shown was preferred, 0 the second, 0.5 for a tie, NaN where it was skipped; float32."""
    swapped: Bool[np.ndarray, " n"]
    """Whether the item's first response was shown second."""
    session: Int[np.ndarray, " n"]
    """Number of the rater's session, from 0; int32."""
    session_time: Float[np.ndarray, " n"]
    """Seconds for which the session had lasted when the answer came; float64."""
    first_length: Int[np.ndarray, " n"]
    """Tokens of the response shown first; int32."""
    second_length: Int[np.ndarray, " n"]
    """Tokens of the response shown second; int32."""
    first_source: Text
    """Which policy wrote the response shown first, or None."""
    second_source: Text
    """Which policy wrote the response shown second, or None."""
    utility_first: Float[np.ndarray, " n"]
    """True utility of the response shown first, NaN where unknown; float32. For measuring only."""
    utility_second: Float[np.ndarray, " n"]
    """True utility of the response shown second, NaN where unknown; float32. For measuring only."""
    gold: Bool[np.ndarray, " n"]
    """Whether this was a gold question: one whose answer is known to whoever asks."""
    gold_answer: Float[np.ndarray, " n"]
    """The right label of a gold question, as `label`; NaN of other questions; float32."""

    def __post_init__(self) -> None:
        for name, column in self.columns().items():
            if column.shape != self.item.shape or column.ndim != 1:
                raise ValueError(f"{name} has shape {column.shape}, item {self.item.shape}; expected n of each")

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, index: Int[np.ndarray, " m"] | Bool[np.ndarray, " n"] | slice) -> Labels:
        return Labels(**{name: column[index] for name, column in self.columns().items()})

    def columns(self) -> dict[str, Shaped[np.ndarray, " n"]]:
        """The arrays by their names, in the order of `SCHEMA`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def item_label(self) -> Float[np.ndarray, " n"]:
        """The answers in the order of the item: 1 where the item's first response was preferred."""
        turned: Float[np.ndarray, " n"] = np.where(self.swapped, 1 - self.label, self.label)
        return turned

    def codes(self, column: str) -> tuple[list[str | None], Int[np.ndarray, " n"]]:
        """The different values of a column of strings in order of appearance, and each row's number among them."""
        encoded = pa.array(getattr(self, column), pa.string()).dictionary_encode(null_encoding="encode")
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)

    def save(self, path: Path) -> None:
        """Writes a Parquet file with the columns of `SCHEMA`, whole or not at all."""
        write_table(path, self.columns(), SCHEMA)

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Reads a file that `save` wrote, or any Parquet file with those columns.

        Raises:
            TextenvError: the file is missing, damaged or empty, lacks a column, or has rows that cannot be:
                a label that is none, an empty place where a value must be, or a vote that is there already.
        """
        table = read_table(path, SCHEMA, "labels")
        _check(path, table)
        return cls(**{name: _array(table.column(name)) for name in SCHEMA.names})


def write_table(path: Path, columns: Mapping[str, Shaped[np.ndarray, " n"]], schema: pa.Schema) -> None:
    """Writes arrays as a Parquet file, whole or not at all; NaN and None become null where the schema lets them."""
    arrays = [pa.array(columns[field.name], field.type, from_pandas=field.nullable) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def read_table(path: Path, schema: pa.Schema, what: str) -> pa.Table:
    """The columns of a schema from a Parquet file.

    Args:
        path: the file.
        schema: columns with their types; other columns are left unread.
        what: what the file holds, for messages.

    Raises:
        TextenvError: the file is missing, damaged or empty, lacks a column, or has an empty place in one that may
            have none.
    """
    try:
        present = pq.read_schema(path).names
        missing = [name for name in schema.names if name not in present]
        if missing:
            raise TextenvError(
                f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; a {what} file has "
                f"{', '.join(schema.names)}"
            )
        table = pq.read_table(path, columns=schema.names)
        for field in schema:
            if not field.nullable and table.column(field.name).null_count:
                refuse_rows(path, pc.is_null(table.column(field.name)), f"no {field.name}", "every row has one")
        table = table.cast(schema)
    except FileNotFoundError:
        raise TextenvError(f"there is no {what} file {path}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, TextenvError):
            raise
        raise TextenvError(f"{path} cannot be read as Parquet {what} ({error}); write it again") from error
    if table.num_rows == 0:
        raise TextenvError(f"{path} holds no row of {what}")
    return table


def refuse_rows(path: Path, wrong: Any, have: str, expected: str) -> None:
    """Names the rows that are wrong, counted from 0.

    Args:
        path: the file that they are in.
        wrong: a truth value for each row, as an array of numpy's or Arrow's.
        have: what is wrong in them, after "have" or "has".
        expected: what would be right.

    Raises:
        TextenvError: some are.
    """
    rows = np.flatnonzero(np.asarray(wrong))
    if len(rows) == 0:
        return
    named = ", ".join(map(str, rows[:ROWS_NAMED])) + (f" and {len(rows) - ROWS_NAMED} more" * (len(rows) > ROWS_NAMED))
    subject = f"row {named} has" if len(rows) == 1 else f"rows {named} have"
    raise TextenvError(f"{path}: {subject} {have}; {expected} (rows count from 0)")


def _check(path: Path, table: pa.Table) -> None:
    """Refuses rows that cannot be."""
    for name in ("label", "gold_answer"):
        values = _array(table.column(name))
        strange = ~(np.isin(values, (0, 0.5, 1)) | np.isnan(values))
        given = "" if not strange.any() else f"the {name} {values[strange][0]:g}"
        refuse_rows(path, strange, given, "expected is 1, 0, 0.5 for a tie, or nothing for a skipped question")
    for name in ("session", "session_time", "first_length", "second_length"):
        # Written so that NaN is refused too.
        refuse_rows(path, ~(_array(table.column(name)) >= 0), f"a {name} below 0 or none", "expected is 0 or more")
    gold, answer = _array(table.column("gold")), _array(table.column("gold_answer"))
    refuse_rows(path, gold & np.isnan(answer), "no gold_answer", "a gold question's answer is known")
    again = _repeated(table)
    refuse_rows(
        path,
        again,
        "a vote that an earlier row has already",
        "a rater answers an item once in a session, or once in each order; leave the others out",
    )


def _repeated(table: pa.Table) -> Bool[np.ndarray, " n"]:
    """Whether an earlier row has the same rater, item, order and session.

    The same question in the other order, or in another session, is no repetition: this is how consistency is measured.
    """
    rater = table.column("rater").combine_chunks().dictionary_encode().indices.to_numpy()
    key = np.stack(
        [rater, *(_array(table.column(name)).astype(np.int64) for name in ("item", "swapped", "session"))], axis=1
    )
    order = np.lexsort(key.T)  # Stable: of equal rows the earliest comes first.
    repeated = np.zeros(len(key), dtype=bool)
    repeated[order[1:]] = (key[order[1:]] == key[order[:-1]]).all(axis=1)
    return repeated


def _array(column: pa.ChunkedArray) -> Shaped[np.ndarray, " n"]:
    array: Shaped[np.ndarray, " n"] = column.to_numpy(zero_copy_only=False)
    return array
