"""Cells on a Ray cluster: the same processes under the same limits, one for each core of every node.

A node that is lost takes its running cells with it; Ray runs them again elsewhere. What several cells share, the
rater's comparisons and the reward model, is made once and given to them through Ray's object store. textenv must be
installed on every node, and what is given as module:Class must lie where Python finds it there too.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.cells import Cell
from benchmarks.suite.engines import Watch
from benchmarks.suite.run_cell import failed_rows
from benchmarks.suite.worker import Limits, Outcome, Worker
from textenv.errors import DiskError, TextenvError, UsageError, first_line

SECONDS_BETWEEN_LOOKS = 0.5
LOST_NODES = 10
"""How often a cell is begun again after its node was lost."""


class RayEngine:
    """A Ray cluster.

    Raises:
        UsageError: Ray is not installed.
        TextenvError: there is no cluster at the address.
    """

    def __init__(self, limits: Limits, address: str | None) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError('--engine ray needs Ray: pip install "textenv[ray]"') from None
        # Workers find modules where this process does; one torch thread each, told before torch is loaded.
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": variables},
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                ignore_reinit_error=True,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise TextenvError(
                f"there is no Ray cluster at {address!r} ({first_line(error)}); start one with `ray start --head`, or "
                "leave --address out for one on this machine"
            ) from None
        self._ray: Any = ray
        self._limits = limits
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def outcomes(self, cells: Sequence[Cell], watch: Watch) -> Generator[Outcome, None, None]:
        """What comes of each cell; see `benchmarks.suite.engines.Engine`."""
        ray = self._ray
        options = {"num_cpus": 1, "max_retries": LOST_NODES}
        task, stages = ray.remote(**options)(run_alone), ray.remote(**options)(stages_alone)
        sharing = Counter(cell.shared_with for cell in cells)
        # By what they share: a reference to it, for which Ray lets the cells wait.
        shared: dict[str | None, Any] = {None: None}
        for cell in cells:
            if cell.shared_with not in shared:
                several = sharing[cell.shared_with] > 1
                shared[cell.shared_with] = stages.remote(cell, self._limits) if several else None
        pending: dict[Any, Cell] = {task.remote(cell, self._limits, shared[cell.shared_with]): cell for cell in cells}
        try:
            while pending:
                ready, _ = ray.wait(list(pending), timeout=SECONDS_BETWEEN_LOOKS)
                for reference in ready:
                    yield self._outcome(reference, pending.pop(reference))
                watch(())  # Ray does not tell which of them run.
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            ray.shutdown()

    def _outcome(self, reference: Any, cell: Cell) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DiskError):
                raise DiskError(str(cause)) from None
            outcome = _failed(cell, first_line(cause if isinstance(cause, Exception) else error))
        except self._ray.exceptions.RayError as error:
            outcome = _failed(cell, f"Ray gave it up: {first_line(error)}")
        return outcome


def _failed(cell: Cell, error: str) -> Outcome:
    return Outcome(cell, failed_rows(cell, error, 0.0), error)


def run_alone(cell: Cell, limits: Limits, stages: bytes | None) -> Outcome:
    """Runs a cell in a process of its own under limits; that process serves the next cell of this one too.

    Args:
        cell: what to run.
        limits: what it may use.
        stages: what `stages_alone` gave of a cell that shares them; None makes them again.
    """
    with tempfile.TemporaryDirectory(prefix="textenv-bench-") as place:
        shared = Path(place) / "shared"
        if stages is not None and cell.shared_with is not None:
            with tarfile.open(fileobj=io.BytesIO(stages)) as archive:
                archive.extractall(shared / cell.shared_with, filter="data")
        return _ended(cell, limits, Path(place) / cell.id, shared if stages is not None else None)


def stages_alone(cell: Cell, limits: Limits) -> bytes | None:
    """The stages before a cell's learning as a tar archive, or None where they failed: then each cell says why."""
    assert cell.shared_with is not None
    with tempfile.TemporaryDirectory(prefix="textenv-bench-") as place:
        shared = Path(place) / "shared"
        outcome = _ended(cell, limits, Path(place) / cell.id, shared, whole=False)
        if outcome.error is not None:
            return None
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(shared / cell.shared_with, arcname=".")
        return buffer.getvalue()


def _ended(cell: Cell, limits: Limits, folder: Path, shared: Path | None, *, whole: bool = True) -> Outcome:
    worker = _worker(limits)
    worker.run(cell, folder, shared, whole=whole)
    outcome = None
    while outcome is None:
        outcome = worker.poll(SECONDS_BETWEEN_LOOKS)
    return outcome


@functools.cache
def _worker(limits: Limits) -> Worker:
    return Worker(limits)
