"""The folder of a benchmark: rows that are never lost, whoever is killed when.

    bench.json               version, and the commands whose rows these are
    runs/*.parquet           a row a cell, done or failed
    curves/*.parquet         a row an iteration
    samples/*.parquet        answers to the first test prompts
    transfer/*.parquet       a row for each task and split that a policy was tried on
    work/                    cells that are not finished; gone when all are

A finished cell leaves one file in each table, that of `runs` last: a cell is there when that file is.
Now and then the files are folded into one, `all.parquet`, so that thousands of cells are read at once.
A kill between that and the removal of the files leaves rows twice; the next one to open the folder for
writing folds them again, and `read` gives each of them once.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.suite.rows import TABLES, Rows, read_tables, table_of
from textenv.errors import TextenvError, UsageError, first_line
from textenv.files import explained, write_atomically

LOOSE_FILES = 200
"""Files of single cells after which they are folded into one."""


class ResultsFolder:
    """A benchmark's folder that one process writes to; made by `open`."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock
        self._loose = 0

    @classmethod
    def open(cls, path: Path) -> ResultsFolder:
        """Makes the folder, or opens one to add to it.

        Raises:
            UsageError: something else is there, or another version has made it or any of its runs.
            TextenvError: another process is writing to it.
            DiskError: it cannot be written.
        """
        known = {"bench.json", "work", "report.html", "tables", ".lock", "README.md", *TABLES}
        ours = (path / "bench.json").is_file() or not path.exists()
        if not ours and not (path.is_dir() and all(entry.name in known for entry in path.iterdir())):
            raise UsageError(f"{path} is neither empty nor a benchmark's folder; choose another --out")
        from agents.run_folder import version  # Here, since the libraries that come with it are not needed to read.

        made_by = read_description(path)["version"] if (path / "bench.json").exists() else version()
        if made_by != version():
            raise UsageError(
                f"{path} holds results of textenv {made_by}, and this is {version()}: their runs cannot be compared. "
                "Choose another --out"
            )
        folder = cls(path, _locked(path))
        try:
            check_version(path, read(path, "runs"), made_by)
            folder.fold()
        except BaseException:
            folder.__exit__()
            raise
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets another process have the folder."""
        self._lock.close()

    def check_settings(self, experiment: str, settings: Mapping[str, Any]) -> None:
        """Refuses settings that are not those of the experiment's runs that are there: they would be compared.

        Raises:
            UsageError: names what differs.
        """
        for sweep in self._sweeps():
            before = sweep.get("settings", settings) if sweep.get("experiment") == experiment else settings
            names = [name for name in settings if before.get(name) != settings[name]]
            differ = [f"--{name.replace('_', '-')} {before.get(name)}" for name in names]
            if differ:
                raise UsageError(
                    f"the runs of {experiment} in {self.path} were made with {', '.join(differ)}; ask for the same, or "
                    "choose another --out"
                )

    def _sweeps(self) -> list[dict[str, Any]]:
        return list(read_description(self.path)["sweeps"]) if (self.path / "bench.json").exists() else []

    def note(self, asked: Sequence[dict[str, Any]]) -> None:
        """Remembers what a command has asked, for each of its experiments; the same again replaces what it noted."""
        from agents.run_folder import version

        commands = {sweep["command"] for sweep in asked}
        sweeps = [each for each in self._sweeps() if each["command"] not in commands] + list(asked)
        text = json.dumps({"version": version(), "sweeps": sweeps}, indent=2) + "\n"
        write_atomically(self.path / "bench.json", lambda place: place.write_text(text, encoding="utf-8"))

    def statuses(self) -> dict[str, str]:
        """Whether each cell that has been run is done or failed, by its id."""
        runs = read(self.path, "runs")
        return dict(zip(runs["cell"].to_pylist(), runs["status"].to_pylist(), strict=True))

    def add(self, cell: str, rows: Rows) -> None:
        """Writes what a cell leaves; a row of it that was there before is replaced.

        Raises:
            DiskError: the disk is full; what was written before is kept, and the cell counts as not run.
        """
        for name in reversed(TABLES):  # The row of `runs`, which says that the cell is there, comes last.
            table = table_of(name, rows.get(name, []))
            if len(table):
                write_atomically(self.path / name / f"{cell}.parquet", partial(_write, table))
            else:
                (self.path / name / f"{cell}.parquet").unlink(missing_ok=True)
        self._loose += 1
        if self._loose >= LOOSE_FILES:
            self.fold()

    def fold(self) -> None:
        """Puts the rows of single cells into one file a table."""
        for name in reversed(TABLES):
            loose = _loose_files(self.path, name)
            if loose:
                table = read(self.path, name)
                write_atomically(self.path / name / "all.parquet", partial(_write, table))
                for file in loose:
                    file.unlink()
        self._loose = 0

    def work(self, cell: str) -> Path:
        """Where a cell that is not finished keeps its run folder."""
        return self.path / "work" / cell

    @property
    def shared(self) -> Path:
        """Where cells leave for each other the stages before learning."""
        return self.path / "work" / "shared"

    def clear_work(self) -> None:
        """Removes what unfinished cells have left."""
        shutil.rmtree(self.path / "work", ignore_errors=True)


def read_description(path: Path) -> dict[str, Any]:
    """What bench.json says.

    Raises:
        UsageError: the folder is not a benchmark's.
    """
    file = path / "bench.json"
    how = "a benchmark's folder holds bench.json and is made by `textenv bench`"
    if not file.is_file():
        raise UsageError(f"{path} has no bench.json; {how}")
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        sweeps = description["sweeps"]
        if not isinstance(description["version"], str) or not all(isinstance(each["command"], str) for each in sweeps):
            raise TypeError("it was not written by textenv")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} cannot be read ({first_line(error)}); {how}") from None
    return dict(description)


def read(path: Path, name: str) -> pa.Table:
    """A table's rows, those of each cell once: of its own file where there is one.

    A table without any rows is empty.

    Raises:
        UsageError: a file is damaged, of another version, or lacks columns.
    """
    folded, loose = path / name / "all.parquet", _loose_files(path, name)
    newest = read_tables(name, loose)
    if not folded.exists():
        return newest
    older = read_tables(name, [folded])
    replaced = pa.array([file.stem for file in loose], pa.string())
    return pa.concat_tables([older.filter(pc.invert(pc.is_in(older["cell"], replaced))), newest])


def check_version(path: Path, runs: pa.Table, version: str) -> None:
    """Refuses runs of another version than that of their folder: they cannot be compared.

    Raises:
        UsageError: names the versions.
    """
    others = sorted({str(each) for each in pc.unique(runs["version"]).to_pylist()} - {version})
    if others:
        raise UsageError(
            f"{path} is a folder of textenv {version} by its bench.json, and holds runs of textenv "
            f"{' and '.join(others)}, which cannot be compared. Keep each version's files in a folder of its own."
        )


def _loose_files(path: Path, name: str) -> Sequence[Path]:
    # Not hidden ones: a file that is being written, or was when its writer was killed.
    known = {file.name for file in (path / "runs").glob("[!.]*.parquet")}
    return [file for file in sorted((path / name).glob("[!.]*.parquet")) if file.name in known - {"all.parquet"}]


def _write(table: pa.Table, place: Path) -> None:
    pq.write_table(table, place, compression="zstd")


def _locked(path: Path) -> IO[str]:
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise TextenvError(
            f"another `textenv bench` is writing to {path}; wait for it or stop it, or choose another --out"
        ) from None
    return lock
