"""Feedback in other forms than pairs: rankings, thumbs and scores, with who, when and where; and its Parquet file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int, Shaped

from reward_models.labels import Text, read_table, refuse_rows, write_table

SCHEMA = pa.schema(
    [
        pa.field("question", pa.int64(), nullable=False),
        pa.field("form", pa.string(), nullable=False),
        pa.field("item", pa.int64(), nullable=False),
        pa.field("response", pa.int64(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("value", pa.float32()),
        pa.field("rater", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("session", pa.int32(), nullable=False),
        pa.field("session_time", pa.float64(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("utility", pa.float32()),
    ]
)
"""Columns of a feedback file, a row for each response of a question; the meanings are those of `Feedback`."""

HIGHEST_SCORE = 7
"""Scores are from 1 to 7, as in Stiennon et al. 2020 (section 3.2)."""
FORMS = ("ranking", "thumbs", "score")
"""What a value is: the rank, 1 being the best; 1 for thumbs up and 0 for down; a score from 1 to `HIGHEST_SCORE`."""


@dataclass(frozen=True)
class Feedback:
    """n rows: a ranking of K responses has K, other questions have one.

    Raises:
        ValueError: the arrays differ in length.
    """

    question: Int[np.ndarray, " n"]
    """Number of the question; rows of one ranking share it; int64."""
    form: Text
    """One of `FORMS`."""
    item: Int[np.ndarray, " n"]
    """The identity of what was asked about, whoever was asked and in whatever order; int64."""
    response: Int[np.ndarray, " n"]
    """The place of the response in the item; int64."""
    position: Int[np.ndarray, " n"]
    """Where it was shown, from 0; int32."""
    value: Float[np.ndarray, " n"]
    """What was said of it, NaN where the question was skipped; float32."""
    rater: Text
    """Who answered."""
    group: Text
    """Of whom the rater is one, or None."""
    session: Int[np.ndarray, " n"]
    """Number of the rater's session, from 0; int32."""
    session_time: Float[np.ndarray, " n"]
    """Seconds for which the session had lasted when the answer came; float64."""
    length: Int[np.ndarray, " n"]
    """Tokens of the response; int32."""
    source: Text
    """Which policy wrote it, or None."""
    utility: Float[np.ndarray, " n"]
    """Its true utility, NaN where unknown; float32. For measuring only."""

    def __post_init__(self) -> None:
        for name, column in self.columns().items():
            if column.shape != (len(self.question),):
                raise ValueError(f"{name} has shape {column.shape}, question {self.question.shape}; expected n of each")

    def __len__(self) -> int:
        return len(self.question)

    def columns(self) -> dict[str, Shaped[np.ndarray, " n"]]:
        """The arrays by their names, in the order of `SCHEMA`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def save(self, path: Path) -> None:
        """Writes a Parquet file with the columns of `SCHEMA`, whole or not at all."""
        write_table(path, self.columns(), SCHEMA)

    @classmethod
    def load(cls, path: Path) -> Feedback:
        """Reads a file that `save` wrote, or any Parquet file with those columns.

        Raises:
            TextenvError: the file is missing, damaged or empty, lacks a column, or has rows that cannot be: an unknown
                form, a value that the form does not have, or a ranking whose ranks are not 1 to K.
        """
        table = read_table(path, SCHEMA, "feedback")
        feedback = cls(**{name: table.column(name).to_numpy(zero_copy_only=False) for name in SCHEMA.names})
        feedback._check(path)
        return feedback

    def _check(self, path: Path) -> None:
        refuse_rows(path, ~np.isin(self.form, FORMS), "an unknown form", f"expected is one of {', '.join(FORMS)}")
        answered, value = ~np.isnan(self.value), self.value
        thumbs = answered & (self.form == "thumbs") & ~np.isin(value, (0, 1))
        refuse_rows(path, thumbs, "a thumb that is neither up nor down", "expected is 1 or 0")
        scores = answered & (self.form == "score") & ~np.isin(value, np.arange(1, HIGHEST_SCORE + 1))
        refuse_rows(path, scores, "a score out of range", f"expected is a whole number from 1 to {HIGHEST_SCORE}")
        rows = np.flatnonzero(self.form == "ranking")
        order = rows[np.lexsort((value[rows], self.question[rows]))]
        first = np.flatnonzero(np.diff(self.question[order], prepend=-1))
        ranks = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order))) + 1
        wrong = np.zeros(len(self), dtype=bool)
        wrong[order] = answered[order] & (value[order] != ranks)
        refuse_rows(path, wrong, "a rank that does not follow", "the ranks of a question are 1 to K, each once")
