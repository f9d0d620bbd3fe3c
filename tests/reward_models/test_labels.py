"""Labels: their order, and what their files are refused for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reward_models.labels import SCHEMA, Labels
from textenv.errors import TextenvError


def some() -> Labels:
    return Labels(
        item=np.array([7, 7, 8, 8]),
        rater=np.array(["ann", "bob", "ann", "bob"], dtype=object),
        group=np.array(["a", None, "a", None], dtype=object),
        label=np.array([1.0, 0.0, 0.5, np.nan], dtype=np.float32),
        swapped=np.array([False, True, False, True]),
        session=np.array([0, 0, 0, 1], dtype=np.int32),
        session_time=np.array([3.0, 4.0, 9.0, 1.0]),
        first_length=np.array([3, 4, 5, 6], dtype=np.int32),
        second_length=np.array([4, 3, 6, 5], dtype=np.int32),
        first_source=np.array(["reference", "policy", None, None], dtype=object),
        second_source=np.array(["policy", "reference", None, None], dtype=object),
        utility_first=np.array([1.0, 0.0, np.nan, np.nan], dtype=np.float32),
        utility_second=np.array([0.0, 1.0, np.nan, np.nan], dtype=np.float32),
        gold=np.array([True, True, False, False]),
        gold_answer=np.array([1.0, 0.0, np.nan, np.nan], dtype=np.float32),
    )


def write(path: Path, **changed: list[Any]) -> Path:
    some().save(path)
    columns = pq.read_table(path).to_pydict() | changed
    schema = pa.schema([pa.field(field.name, field.type) for field in SCHEMA])
    pq.write_table(pa.Table.from_pydict(columns, schema), path)
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    some().save(tmp_path / "labels.parquet")
    assert pq.read_schema(tmp_path / "labels.parquet").equals(SCHEMA)
    again = Labels.load(tmp_path / "labels.parquet")
    for name, column in some().columns().items():
        np.testing.assert_array_equal(again.columns()[name], column)
        assert again.columns()[name].dtype == column.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["labels.parquet"]


def test_answers_are_turned_to_the_items_order() -> None:
    # bob saw item 7 swapped and preferred the second shown, which is the item's first.
    np.testing.assert_array_equal(some().item_label, [1, 1, 0.5, np.nan])


def test_rows_are_chosen_and_strings_are_numbered() -> None:
    chosen = some()[np.array([1, 3])]
    assert list(chosen.rater) == ["bob", "bob"]
    assert len(some()[some().gold]) == 2
    names, codes = some().codes("rater")
    assert (names, codes.tolist()) == (["ann", "bob"], [0, 1, 0, 1])
    assert some().codes("group")[0] == ["a", None]


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"label has shape \(3,\), item \(4,\)"):
        dataclasses.replace(some(), label=np.zeros(3, dtype=np.float32))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": [1, 0, 0.7, None]}, r"row 2 has the label 0\.7; expected is 1, 0, 0\.5 for a tie"),
        ({"label": [2, 0, -1, None]}, "rows 0, 2 have the label 2"),
        ({"gold_answer": [1, None, None, None]}, "row 1 has no gold_answer; a gold question's answer is known"),
        ({"rater": ["ann", None, "ann", "bob"]}, "row 1 has no rater; every row has one"),
        ({"session_time": [0, -1, 2, 3]}, "row 1 has a session_time below 0"),
        ({"item": [7, 7, 7, 8]}, "row 2 has a vote that an earlier row has already"),
    ],
)
def test_rows_that_cannot_be_are_named(tmp_path: Path, changed: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(TextenvError, match=message):
        Labels.load(write(tmp_path / "labels.parquet", **changed))


def test_a_question_may_be_asked_again_in_the_other_order_or_another_session(tmp_path: Path) -> None:
    changed = {"item": [7, 7, 7, 7], "swapped": [False, True, True, True]}
    assert len(Labels.load(write(tmp_path / "labels.parquet", **changed))) == 4


def test_files_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.parquet")
    with pytest.raises(TextenvError, match="there is no labels file"):
        Labels.load(tmp_path / "gone.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["rater", "gold"]), tmp_path / "lacks.parquet")
    with pytest.raises(TextenvError, match="lacks the columns rater, gold; a labels file has item, rater,"):
        Labels.load(tmp_path / "lacks.parquet")
    pq.write_table(pq.read_table(path).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(TextenvError, match="holds no row of labels"):
        Labels.load(tmp_path / "empty.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TextenvError, match=r"cannot be read as Parquet labels .*; write it again"):
        Labels.load(path)
