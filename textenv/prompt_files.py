"""Reading prompts and texts of the user's own: text, JSONL, Parquet, or a dataset that the library datasets saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from textenv.errors import TextenvError, UsageError, first_line

if TYPE_CHECKING:
    from textenv.tasks.base import Split

COLUMN = "prompt"
"""The field of JSONL and the column of tables that holds the prompts, unless another is asked for."""

_JSON = (".jsonl", ".ndjson", ".json")
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Prompt(NamedTuple):
    """One prompt as it was found."""

    text: str
    where: str
    """The file and the line or row, for messages."""
    split: Split | None = None
    """Where the file itself puts it, as a dataset with several splits does."""


def read_prompts(path: Path, column: str = COLUMN) -> list[Prompt]:
    """The prompts of a file or folder, in its order.

    Args:
        path: UTF-8 text with a prompt a line (blank lines are passed over); where the name ends in .jsonl
            (or .json), the field `prompt` of each line; a Parquet file with a column `prompt`; or a folder
            that `save_to_disk` of the library datasets wrote, with that column. Of several splits in such
            a folder, those called train, validation and test are read.
        column: the name of that field or column, which is also what messages call a prompt.

    Raises:
        UsageError: names the file, and the line or row, that cannot be used.
        TextenvError: it is a dataset, and the library datasets is not installed.
    """
    read = _dataset if path.is_dir() else _parquet if path.suffix.lower() == ".parquet" else _lines
    try:
        prompts = list(read(path, column))
    except FileNotFoundError:
        raise UsageError(f"there is no {column}s file {str(path)!r}") from None
    except OSError as error:
        raise UsageError(f"the {column}s file {str(path)!r} cannot be read: {error.strerror or error}") from None
    if not prompts:
        raise UsageError(f"{path}: no {column}s in it; at least one is needed")
    return prompts


def _lines(path: Path, column: str) -> Iterator[Prompt]:
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise UsageError(f"{where}: not UTF-8; save the file as UTF-8 text") from None
        if text:
            yield Prompt(_field(text, where, column) if path.suffix.lower() in _JSON else text, where)


def _field(line: str, where: str, column: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f'{where}: not JSON ({error}); expected is {{"{column}": "..."}}') from None
    if not isinstance(row, dict) or column not in row:
        raise UsageError(f'{where}: no field "{column}"; expected is {{"{column}": "..."}}')
    return checked_text(row[column], f'{where}: the field "{column}"')


def _parquet(path: Path, column: str) -> Iterator[Prompt]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, str(path), column)
            table = file.read(columns=[column])
    except pa.ArrowException as error:
        raise UsageError(f"{path} cannot be read as Parquet ({first_line(error)}); write it again") from None
    yield from _rows(table, str(path), column)


def _dataset(folder: Path, column: str) -> Iterator[Prompt]:
    """The prompts of a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    if not any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        raise UsageError(
            f"the {column}s folder {str(folder)!r} cannot be read: it holds no dataset, as `save_to_disk` of the "
            "library datasets writes it; give such a folder, or a text, JSONL or Parquet file"
        )
    if not any(folder.rglob("*.arrow")):
        return  # The library does not read again what it wrote of no rows.
    if find_spec("datasets") is None:
        raise TextenvError(
            f"the {column}s {str(folder)!r} are a dataset of the library datasets, which is not installed: "
            'pip install "textenv[datasets]"'
        )
    import datasets  # type: ignore[import-untyped]  # The library ships no types.

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # It raises what its own readers, pyarrow's and json's raise.
        raise UsageError(f"the dataset {folder} cannot be read ({first_line(error)}); save it again") from None
    if isinstance(found, datasets.Dataset):
        yield from _rows(_table(found, str(folder), column), str(folder), column)
        return
    if "train" not in found:
        raise UsageError(
            f"the dataset {folder} has the splits {', '.join(map(str, found)) or 'none'}; expected is train, with "
            "validation and test where there are such. Or give the folder of one split"
        )
    for split in _SPLITS:
        if split in found:
            where = f"{folder}, split {split}"
            table = _table(found[split], where, column)
            yield from (prompt._replace(split=split) for prompt in _rows(table, where, column))


def _table(dataset: Any, where: str, column: str) -> pa.Table:
    _check_columns(dataset.column_names, where, column)
    return dataset.select_columns([column]).with_format("arrow")[:]


def _check_columns(names: list[str], where: str, column: str) -> None:
    if column not in names:
        has = f"it has {', '.join(map(repr, names))}" if names else "it has none"
        raise UsageError(f"{where}: no column {column!r} ({has}); rename the one with the {column}s to {column!r}")


def _rows(table: pa.Table, where: str, column: str) -> Iterator[Prompt]:
    for number, value in enumerate(table.column(column).to_pylist(), start=1):
        place = f"{where}, row {number}"
        yield Prompt(checked_text(value, f"{place}: the column {column!r}"), place)


def checked_text(value: object, what: str) -> str:
    """The value, where it is a text with more than spaces in it.

    Raises:
        UsageError: it is not; it begins with `what`.
    """
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{what} is {short(value)}; expected is a text that is not blank")
    return value


def short(value: object) -> str:
    """A value as Python writes it, cut to what a message has room for."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
