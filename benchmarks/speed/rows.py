"""The rows of a measurement: one an iteration, in a Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.speed.plan import Race
from benchmarks.speed.race import Result
from textenv import processor
from textenv.files import write_atomically

SCHEMA = pa.schema(
    [
        pa.field("section", pa.string()),
        pa.field("contestant", pa.string()),
        pa.field("threads", pa.int32()),
        pa.field("round", pa.int32()),
        *(
            pa.field(name, pa.string() if name == "model" else pa.int32())
            for name in (
                *("model", "layers", "width", "vocab", "prompt", "response", "prompts", "group", "epochs"),
                "minibatches",
            )
        ),
        pa.field("wall", pa.float64()),
        pa.field("cpu", pa.float64()),
        pa.field("rollout_wall", pa.float64()),
        pa.field("rollout_cpu", pa.float64()),
        pa.field("tokens", pa.int64()),
        pa.field("steps", pa.int32()),
        pa.field("flops", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("share", pa.float64()),
        pa.field("executed", pa.float64()),
        pa.field("peak_mib", pa.float64()),
        pa.field("versions", pa.string()),
        pa.field("processor", pa.string()),
        pa.field("cores", pa.int32()),
    ]
)
"""The fields of `Shape`, of `Lap` and of `Result`, and who, where and when; rounds count from 1."""

Row = dict[str, Any]


def rows_of(race: Race, results: Iterable[Result]) -> list[Row]:
    """The rows of a race, in the order of its contestants."""
    name, cores = machine()
    return [
        {
            "section": race.section,
            "contestant": result.start.contestant.name,
            "threads": race.threads,
            "round": number,
            **asdict(result.start.shape),
            **lap,
            "executed": result.executed,
            "peak_mib": result.peak_mib,
            "versions": json.dumps(result.versions, sort_keys=True),
            "processor": name,
            "cores": cores,
        }
        for result in results
        for number, lap in enumerate(result.laps, 1)
    ]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Writes the file whole."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    write_atomically(file, lambda temporary: pq.write_table(table, temporary))


def machine() -> tuple[str, int]:
    """The processor's name and the cores that may be used."""
    return processor.model_name(), len(os.sched_getaffinity(0))
