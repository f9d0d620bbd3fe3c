"""A process that runs cells one after the other, and is ended when one takes too long or too much memory.

It is a process of its own rather than one of a pool's, since a pool cannot end one task: it would lose all.
"""

from __future__ import annotations

import multiprocessing as mp
import multiprocessing.forkserver
import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from textenv.errors import DiskError

if TYPE_CHECKING:  # Loading torch would keep `warm_up` waiting.
    from benchmarks.suite.cells import Cell
    from benchmarks.suite.rows import Rows

SECONDS_BETWEEN_MESSAGES = 0.5

# Forked from a process that has loaded the libraries, once for all workers, and has done nothing with them: threads
# of this one would be missing in its children.
_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["benchmarks.suite.run_cell"])


def warm_up() -> None:
    """Begins to load what workers need, in the background, so that they start at once."""
    # One torch thread each; and of the current folder nothing, where a folder could be called as one of ours is.
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    # Ctrl-C is for the parent, which ends its workers; a process begins with the signals blocked that its maker has.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@dataclass(frozen=True)
class Limits:
    """What one cell may use."""

    seconds: float
    """Wall clock."""
    megabytes: float
    """MiB of memory that are in use at one time."""


class Outcome(NamedTuple):
    """What came of a cell."""

    cell: Cell
    rows: Rows
    error: str | None
    """Why it failed; None where it did not."""


class Worker:
    """One process, with one torch thread."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cell: Cell | None = None
        """What it is running."""
        self.stage, self.fraction = "", 0.0
        """How far it is."""
        self._process: ForkServerProcess | None = None

    def _start(self) -> ForkServerProcess:
        warm_up()
        self.connection, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return process

    def run(self, cell: Cell, folder: Path, shared: Path | None, *, whole: bool = True) -> None:
        """Begins a cell; `poll` tells when it has ended.

        Args:
            cell: what to run.
            folder: its run folder.
            shared: where cells leave for each other the stages before learning; None shares nothing.
            whole: False runs those stages alone, for other cells; then no rows come of it.
        """
        self.cell, self.stage, self.fraction = cell, "", 0.0
        self._folder, self._began = folder, time.monotonic()
        self._process = self._process or self._start()
        # A process that has died says so when it is polled.
        with suppress(OSError):
            self.connection.send((cell, folder, shared, whole))

    @property
    def seconds(self) -> float:
        """Since the cell began."""
        return time.monotonic() - self._began

    def poll(self, timeout: float = 0.0) -> Outcome | None:
        """What came of the cell, or None while it runs; a cell that breaks its limits is ended.

        Raises:
            DiskError: the cell could not write what it needs to go on; that is not its own fault.
        """
        try:
            while self.connection.poll(timeout):
                timeout = 0.0
                kind, *told = self.connection.recv()
                if kind == "progress":
                    self.stage, self.fraction = told
                elif kind == "disk":
                    raise DiskError(told[0])
                else:
                    return self._ended(*told)
        except (EOFError, OSError):
            return self._died()
        if self.seconds > self.limits.seconds:
            return self._stopped(f"took longer than {self.limits.seconds:g} seconds (--time-limit)")
        if self._process is not None and _memory(self._process.pid) > self.limits.megabytes:
            return self._stopped(f"used more than {self.limits.megabytes:g} MiB of memory (--memory-limit)")
        return None

    def end(self) -> None:
        """Ends the process; what its cell has written stays."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process = None

    def _stopped(self, error: str) -> Outcome:
        self.end()
        return self._failed(error)

    def _died(self) -> Outcome:
        assert self._process is not None
        self._process.join(5)
        code = self._process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        hint = "; the system may have been out of memory" if code == -signal.SIGKILL else ""
        self.end()
        return self._failed(f"its process ended by {how}{hint}")

    def _failed(self, error: str) -> Outcome:
        from benchmarks.suite.run_cell import failed_rows

        assert self.cell is not None
        return self._ended(failed_rows(self.cell, error, self.seconds), error)

    def _ended(self, rows: Rows, error: str | None) -> Outcome:
        assert self.cell is not None
        outcome = Outcome(self.cell, rows, error)
        self.cell = None
        shutil.rmtree(self._folder, ignore_errors=True)
        return outcome


def _memory(process: int | None) -> float:
    """MiB of memory that a process has in use; 0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class _Teller:
    """The listener of a worker's runs; passes on how they go, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = 0.0

    def progress(self, stage: str, done: int, total: int, numbers: object) -> None:
        """Tells how far a stage is."""
        now = time.monotonic()
        if done == 0 or now - self._last > SECONDS_BETWEEN_MESSAGES:
            self._last = now
            self._connection.send(("progress", stage, done / max(total, 1)))

    def end(self, stage: str, seconds: float) -> None:
        """Stages that begin tell enough."""

    def stopping(self) -> bool:
        """A worker is ended from outside."""
        return False


def _serve(connection: Connection) -> None:
    """Runs cells until nobody is at the other end."""
    import torch
    from transformers.utils import logging as transformers_logging

    from benchmarks.suite.run_cell import failed_rows, run_cell, share_stages, told

    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    try:
        while True:
            cell, folder, shared, whole = connection.recv()
            start = time.perf_counter()
            rows, said = {}, None
            try:
                if whole:
                    rows = run_cell(cell, folder, shared, _Teller(connection))
                else:
                    share_stages(cell, folder, shared, _Teller(connection))
            except DiskError as error:
                connection.send(("disk", str(error)))
                continue
            except Exception as error:  # Of anyone's agent: it is written down, and the other cells go on.
                said = told(error)
                rows = failed_rows(cell, said, time.perf_counter() - start)
            connection.send(("ended", rows, said))
    except (EOFError, OSError):
        return
