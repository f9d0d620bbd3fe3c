"""Preferences in the formats of TRL's trainers, as JSON lines or Parquet that `datasets` loads, and back.

Explicit prompts with a chosen and a rejected response and a margin (DPOTrainer, RewardTrainer), and unpaired
responses with a label (KTOTrainer). A prompt is written as the model sees it, special tokens included, and read as it
stands. A response is written without them, since the trainers add the end token themselves, and gets it when read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float

from textenv.errors import TextenvError, UsageError
from textenv.files import write_atomically
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses
from textenv.token_texts import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDINGS = (".jsonl", ".parquet")
PAIRED = {"prompt": pa.string(), "chosen": pa.string(), "rejected": pa.string(), "margin": pa.float32()}
UNPAIRED = {"prompt": pa.string(), "completion": pa.string(), "label": pa.bool_()}


def export_paired(preferences: Preferences, path: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """Writes prompt, chosen, rejected and margin; the margin is |2·label − 1|, the votes that the chosen one leads by.

    Args:
        preferences: those whose label is a tie have no chosen response, and are left out.
        path: ends with .jsonl or .parquet.
        tokenizer: writes the text.

    Returns:
        How many were written.

    Raises:
        UsageError: the file has another ending.
        TextenvError: all are ties.
    """
    rows = []
    for prompt, first, second, label in _texts(preferences, tokenizer):
        if label != 0.5:
            chosen, rejected = (first, second) if label > 0.5 else (second, first)
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": abs(2 * label - 1)})
    return _write(rows, path, PAIRED)


def export_unpaired(preferences: Preferences, path: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """Writes prompt, completion and label: true for each preferred response and false for each other one.

    Arguments, result and errors are those of `export_paired`.
    """
    rows = []
    for prompt, first, second, label in _texts(preferences, tokenizer):
        if label != 0.5:
            rows.append({"prompt": prompt, "completion": first, "label": label > 0.5})
            rows.append({"prompt": prompt, "completion": second, "label": label < 0.5})
    return _write(rows, path, UNPAIRED)


def import_paired(path: Path, tokenizer: PreTrainedTokenizerBase, rater: str = "unknown") -> Preferences:
    """Reads prompt, chosen and rejected, the chosen one first; with a margin the label is (1 + margin)/2, else 1.

    Args:
        path: JSON lines or Parquet.
        tokenizer: reads the text, and ends each response with its end-of-sequence token.
        rater: kept with every comparison.

    Raises:
        UsageError: the file has another ending.
        TextenvError: it is missing or damaged, lacks a column, or a row has something else than text, or a margin
            outside [0, 1].
    """
    table = _read(path, ("prompt", "chosen", "rejected"))
    for row, margin in enumerate(margins := table.get("margin", [1.0] * len(table["prompt"]))):
        if not (isinstance(margin, int | float) and 0 <= margin <= 1):
            raise TextenvError(
                f"{path}: row {row} has the margin {margin!r}; expected is the lead of the chosen response in votes, "
                "from 0 to 1. Take the column out if it means something else (rows count from 0)"
            )
    prompts = _prompts(path, table["prompt"], tokenizer)
    n = len(prompts)
    return Preferences(
        _responses(prompts, table["chosen"], tokenizer),
        _responses(prompts, table["rejected"], tokenizer),
        label=(1 + torch.tensor(margins, dtype=torch.float32)) / 2,
        rater=[rater] * n,
        session_time=torch.zeros(n, dtype=torch.float64),
        utility=torch.full((n, 2), math.nan),
        probability=torch.full((n,), math.nan),
    )


def import_unpaired(path: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[Responses, torch.Tensor]:
    """Reads prompt, completion and label.

    Args:
        path: JSON lines or Parquet.
        tokenizer: reads the text, and ends each response with its end-of-sequence token.

    Returns:
        n responses, one to each prompt, and what was said of each: 1 for true, 0 for false.

    Raises:
        UsageError: the file has another ending.
        TextenvError: it is missing or damaged, lacks a column, or a row has something else than text, or a label that
            is not true or false.
    """
    table = _read(path, ("prompt", "completion"), "label")
    for row, label in enumerate(table["label"]):
        if not isinstance(label, bool):
            raise TextenvError(f"{path}: row {row} has the label {label!r}, expected true or false (rows count from 0)")
    prompts = _prompts(path, table["prompt"], tokenizer)
    return _responses(prompts, table["completion"], tokenizer), torch.tensor(table["label"], dtype=torch.float32)


def paired_up(responses: Responses, up: Float[torch.Tensor, " n"], rater: str = "unknown") -> Preferences:
    """Each response that was approved against each to the same prompt that was not; the approved one comes first.

    Args:
        responses: one to each of n prompts, of which several are the same.
        up: 1 for approved, 0 for not.
        rater: kept with every comparison.

    Raises:
        TextenvError: no prompt has responses of both kinds.
    """
    of_prompt: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
    for row, prompt in enumerate(responses.prompts.to_lists()):
        of_prompt.setdefault(tuple(prompt), ([], []))[int(up[row])].append(row)
    pairs = [(good, bad) for bads, goods in of_prompt.values() for good in goods for bad in bads]
    if not pairs:
        raise TextenvError(
            f"none of {len(of_prompt)} prompts has both an approved response and one that was not, so nothing can be "
            "compared; give more responses to each prompt"
        )
    first, second = torch.tensor(pairs).unbind(dim=1)
    n = len(pairs)
    return Preferences(
        responses.groups(first),
        responses.groups(second),
        label=torch.ones(n),
        rater=[rater] * n,
        session_time=torch.zeros(n, dtype=torch.float64),
        utility=torch.full((n, 2), math.nan),
        probability=torch.full((n,), math.nan),
    )


def _texts(preferences: Preferences, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str, str, float]]:
    prompts = [
        str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for ids in preferences.prompts.to_lists()
    ]
    first, second = (
        [decode(tokenizer, ids) for ids in side.to_lists()] for side in (preferences.first, preferences.second)
    )
    return list(zip(prompts, first, second, preferences.label.tolist(), strict=True))


def _write(rows: Sequence[Mapping[str, Any]], path: Path, columns: Mapping[str, pa.DataType]) -> int:
    _check_ending(path)
    if not rows:
        raise TextenvError("every comparison is a tie, so there is no chosen response to write")
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(columns.items()))
        write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(path, lambda temporary: temporary.write_text(lines, encoding="utf-8"))
    return len(rows)


def _read(path: Path, texts: Sequence[str], *others: str) -> dict[str, list[Any]]:
    """The columns of a file, of which `texts` hold text."""
    _check_ending(path)
    try:
        if path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise TextenvError(f"there is no file {path}") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TextenvError(f"{path} cannot be read as {path.suffix[1:]} ({error}); write it again") from error
    if not rows:
        raise TextenvError(f"{path} holds no row")
    for number, row in enumerate(rows):
        missing = [name for name in (*texts, *others) if not isinstance(row, dict) or name not in row]
        if missing:
            raise TextenvError(f"{path}: row {number} lacks {', '.join(missing)} (rows count from 0)")
        for name in texts:
            if not isinstance(row[name], str):
                raise TextenvError(f"{path}: row {number} has a {name} that is no text (rows count from 0)")
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def _check_ending(path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise UsageError(f"{path} must end with {' or '.join(ENDINGS)}")


def _prompts(path: Path, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Prompts:
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    for row, prompt in enumerate(ids):
        if not prompt:
            raise TextenvError(f"{path}: row {row} has an empty prompt (rows count from 0)")
    return Prompts.from_lists(ids, _pad(tokenizer))


def _responses(prompts: Prompts, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Responses:
    ids = [[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in texts]
    return Responses.from_lists(prompts, ids, _pad(tokenizer))


def _pad(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
