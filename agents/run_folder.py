"""A run's folder: what a killed run needs to go on, and what a finished one leaves to be read.

Layout (everything is written to a sibling first and renamed into place, so no file is ever half there):

    config.json               what was asked, the versions, threads, dtype and processor it runs under, and
                              the SHA-256 of every file that it depends on
    stages/<name>.json        one file for each finished stage, with its seconds
    metrics/part-*.parquet    a row an iteration; each part belongs to the checkpoint of the same number
    checkpoints/step-*/       the agent, bit for bit; the last two are kept
    failure.parquet           of a run that failed: the rows since its last good checkpoint, up to the one it failed at
    summary.json              the run's result; its presence means that the run is finished

A part is written before its checkpoint. A kill between the two leaves a part that belongs to no
checkpoint; going on discards it and writes it again, the same.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.metadata
import json
import resource
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers

from textenv import processor
from textenv.errors import TextenvError, UsageError, first_line
from textenv.files import explained, write_atomically
from textenv.precision import native

T = TypeVar("T")
Row = dict[str, Any]
CHECKPOINTS_KEPT = 2
FAILURE = "failure.parquet"


@functools.cache
def version() -> str:
    """The installed version of this package; a checkout that is not installed has none."""
    try:
        return importlib.metadata.version("textenv")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def environment(threads: int) -> dict[str, Any]:
    """What the bits of a run depend on, beside its config: versions, threads, dtype, processor."""
    return {
        "version": version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": threads,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        # Whose library multiplies depends on the maker, and in which numbers on what it has.
        "processor": f"{torch.backends.cpu.get_cpu_capability()} {processor.maker()} {native()}",
    }


class RunFolder:
    """One run on disk; made by `create` or `open`, held by one process at a time."""

    def __init__(self, path: Path, description: dict[str, Any], lock: IO[str]) -> None:
        self.path = path
        self.description = description
        self._lock = lock

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Any],
        *,
        threads: int,
        created: str,
        inputs: Mapping[str, str] | None = None,
    ) -> RunFolder:
        """Makes a new run folder at `path`, which must not exist or be empty.

        Args:
            path: where; parents are made.
            config: what was asked, as JSON values.
            threads: torch threads the run uses.
            created: when, ISO 8601.
            inputs: the SHA-256 of each file that the run depends on, under the name that messages give it.

        Raises:
            UsageError: something is already there.
            DiskError: it cannot be written.
        """
        # A run that was killed in its first moment leaves nothing but these.
        begun = (".lock", ".config.")
        if path.exists() and not (path.is_dir() and all(entry.name.startswith(begun) for entry in path.iterdir())):
            raise UsageError(
                f"{path} already exists and is not an empty folder. Choose another --out, "
                f"or go on with the run in it: textenv train --resume {path}"
            )
        description = environment(threads) | {
            "created": created,
            "config": dict(config),
            "inputs": dict(inputs or {}),
        }
        folder = cls(path, description, _locked(path))
        folder.write_json("config.json", description)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Opens a run to go on with it.

        Raises:
            UsageError: `path` is not a run folder, another process is at work on it, or it was made
                under versions that would not give the same bits.
        """
        description = read_description(path)
        here = environment(description["threads"])
        changed = [f"{key} {description.get(key)} (here: {value})" for key, value in here.items()
                   if description.get(key) != value]  # fmt: skip
        if changed:
            raise UsageError(
                f"the run {path} was made under {', '.join(changed)}, so going on here would not give the same "
                "weights. Go on under what it was made with, or start a new run."
            )
        return cls(path, description, _locked(path))

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Refuses to go on where a file that the run depends on is no longer what it was.

        Args:
            inputs: as `create` takes them, now.

        Raises:
            UsageError: names what has changed.
        """
        before = self.description.get("inputs", {})
        changed = [name for name in {**before, **inputs} if before.get(name) != inputs.get(name)]
        if changed:
            raise UsageError(
                f"the run {self.path} was made with other content of {', '.join(changed)}, so going on would not "
                "give the same weights. Put back what it was made with, or start a new run."
            )

    @property
    def config(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return dict(self.description["config"])

    @property
    def threads(self) -> int:
        """The number of torch threads that the run is fixed to."""
        return int(self.description["threads"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets another process have the folder."""
        self._lock.close()

    # Files -----------------------------------------------------------------------------------

    def write_json(self, name: str, value: object) -> None:
        """Writes `name` atomically as JSON; NaN is refused, since other readers cannot read it."""
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / name, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON object that `name` holds, or None where it has not been written.

        Raises:
            UsageError: the file is damaged.
        """
        file = self.path / name
        return _read(file, _json_object) if file.exists() else None

    def write_rows(self, name: str, rows: Sequence[Row]) -> None:
        """Writes rows atomically as Parquet, with the columns of all of them."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = pa.table({column: [row.get(column) for row in rows] for column in columns})
        write_atomically(self.path / name, lambda temporary: pq.write_table(table, temporary))

    def read_rows(self, name: str) -> list[Row]:
        """The rows that `write_rows` wrote.

        Raises:
            UsageError: the file is missing or damaged.
        """
        return _read(self.path / name, lambda file: pq.read_table(file).to_pylist())

    # Stages ----------------------------------------------------------------------------------

    def finished(self, stage: str) -> bool:
        """Whether all of a stage's files are there."""
        return (self.path / "stages" / f"{stage}.json").exists()

    def finish_stage(self, name: str, *, seconds: float) -> None:
        """Marks a stage as finished; call it after all its files are written."""
        self.write_json(f"stages/{name}.json", {"seconds": seconds})

    def costs(self) -> dict[str, float]:
        """Wall-clock seconds of all finished stages and of each, and this process's peak memory in MiB."""
        files = sorted((self.path / "stages").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        seconds = {file.stem: _read(file, lambda file: float(_json_object(file)["seconds"])) for file in files}
        return {
            "seconds": sum(seconds.values()),
            **{f"seconds_{stage}": value for stage, value in seconds.items()},
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    @property
    def summary(self) -> dict[str, Any] | None:
        """The result, or None where the run is not finished."""
        return self.read_json("summary.json")

    # Checkpoints and the metrics that belong to them -------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-?????????"))

    def save_checkpoint(self, timesteps: int, save_agent: Callable[[Path], None], rows: Sequence[Row]) -> Path:
        """Writes a checkpoint with the metrics rows since the one before; keeps the last two.

        Args:
            timesteps: the agent's counter; numbers the checkpoint and its part.
            save_agent: writes the agent as a folder at the path that it is given.
            rows: one row for each iteration since the last checkpoint.
        """
        if rows:
            self.write_rows(f"metrics/part-{timesteps:09d}.parquet", rows)
        target = self.path / "checkpoints" / f"step-{timesteps:09d}"
        if not target.exists():
            # Any agent's `save` will do, also one that does not write whole or not at all.
            unfinished = target.with_name("unfinished")
            with explained(target):
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(unfinished, ignore_errors=True)
                save_agent(unfinished)
                unfinished.rename(target)
        for old in self.checkpoints()[:-CHECKPOINTS_KEPT]:
            shutil.rmtree(old)
        return target

    def drop_checkpoint(self) -> list[Row]:
        """Removes the newest checkpoint and returns the metrics rows that belonged to it alone."""
        newest = self.checkpoints()[-1]
        part = f"metrics/part-{newest.name.removeprefix('step-')}.parquet"
        rows = self.read_rows(part) if (self.path / part).exists() else []
        # Renamed first, so that a kill leaves no half of it under its name.
        unfinished = newest.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        newest.rename(unfinished)
        shutil.rmtree(unfinished)
        (self.path / part).unlink(missing_ok=True)
        return rows

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint, or None; parts later than it are discarded."""
        newest = self.checkpoints()[-1:]
        for part in (self.path / "metrics").glob("part-*.parquet"):
            if not newest or part.stem.removeprefix("part-") > newest[0].name.removeprefix("step-"):
                part.unlink()
        return newest[0] if newest else None

    def metrics(self) -> list[Row]:
        """All rows that belong to checkpoints, in order.

        Raises:
            UsageError: a part is damaged.
        """
        parts = sorted((self.path / "metrics").glob("part-*.parquet"))
        return [row for part in parts for row in self.read_rows(f"metrics/{part.name}")]


def read_description(path: Path) -> dict[str, Any]:
    """What `config.json` of a run says, whatever it was made under.

    Raises:
        UsageError: `path` is not a run folder.
    """
    how = "a run folder holds config.json and is made by `textenv train`, by default under runs/"
    if not path.is_dir():
        raise UsageError(f"there is no run folder at {path}; {how}.")
    file = path / "config.json"
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} is not a run folder: it has no config.json; {how}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{file} cannot be read ({error}); {how}.") from None
    expected = {"version": str, "torch": str, "threads": int, "dtype": str, "config": dict}
    if not isinstance(description, dict) or not all(
        isinstance(description.get(key), kind) for key, kind in expected.items()
    ):
        raise UsageError(f"{path} is not a run folder: its config.json was not written by textenv; {how}.")
    return dict(description)


def _read(file: Path, reader: Callable[[Path], T]) -> T:
    try:
        return reader(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file} is missing or damaged ({first_line(error)}); put back a copy of it, or start a new run"
        ) from error


def _json_object(file: Path) -> dict[str, Any]:
    value = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, expected an object")
    return value


def _locked(path: Path) -> IO[str]:
    """Holds the run for this process; the system lets go of it when the process ends, however it ends."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise TextenvError(f"another process is at work on the run {path}; wait for it or stop it.") from None
    return lock
