"""Cells on a Ray cluster: the same processes under the same limits, one for each core of every node.

A node that is lost takes its running cells with it; Ray runs them again elsewhere. textenv must be
installed on every node, and what is given as module:Class must lie where Python finds it there too.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
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
        task = ray.remote(num_cpus=1, max_retries=LOST_NODES)(run_alone)
        pending: dict[Any, Cell] = {task.remote(cell, self._limits): cell for cell in cells}
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


def run_alone(cell: Cell, limits: Limits) -> Outcome:
    """Runs a cell in a process of its own under limits; that process serves the next cell of this one too."""
    worker = _worker(limits)
    with tempfile.TemporaryDirectory(prefix="textenv-bench-") as folder:
        worker.run(cell, Path(folder) / cell.id, None)
        outcome = None
        while outcome is None:
            outcome = worker.poll(SECONDS_BETWEEN_LOOKS)
    return outcome


@functools.cache
def _worker(limits: Limits) -> Worker:
    return Worker(limits)
