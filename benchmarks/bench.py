"""`textenv bench`: runs agents on tasks with raters and seeds, and reports what can be said of the results."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

from textenv.errors import DiskError, UsageError, first_line

if TYPE_CHECKING:
    from benchmarks.suite.cells import Axes
    from benchmarks.suite.engines import Engine
    from benchmarks.suite.results_folder import ResultsFolder

LISTS = ("experiments", "agents", "tasks", "raters")


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """What is run, and with how much of which machines. Names in a list are parted by commas or spaces."""

    preset: Literal["quick", "full"] = "quick"
    """Takes the place of what is not asked for: quick is for a first look, full takes days of one core."""
    experiments: tuple[str, ...] = ("leaderboard",)
    """Folders under benchmarks/experiments."""
    agents: tuple[str, ...] | None = None
    """Names of `textenv list agents`, or module:Class; the others are compared with the first."""
    tasks: tuple[str, ...] | None = None
    """Names of `textenv list tasks`, or module:Class."""
    raters: tuple[str, ...] | None = None
    """Names of `textenv list raters`, or module:Class; gold is the truth itself: as reward, as judge of comparisons or
    of demonstrations, whichever an agent learns from."""
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = ()
    """Settings of agents to try, as in ppo.learning_rate=1e-3,5e-4 grpo.n_epochs=2: each value is run and shown beside
    the others, and several fields of an agent in every combination."""
    seeds: int | None = None
    """Runs of each combination, with the seeds 0, 1, …"""
    tokens: int | None = None
    """Response tokens that an agent learns from."""
    labels: int | None = None
    """Comparisons that a rater is asked for."""
    test_prompts: int | None = None
    """Test prompts on which a policy is judged."""
    test_samples: int | None = None
    """Responses to each test prompt."""
    out: Path = Path("runs/bench")
    """Folder of the results; what it holds already is not run again."""
    engine: Literal["local", "ray"] = "local"
    """Who runs: processes on this machine, or a Ray cluster (extra: ray)."""
    address: str | None = None
    """Of a Ray cluster, or auto for the one that this machine belongs to; None starts one here."""
    workers: int | None = None
    """Runs at a time, each on one thread; None is one for each core."""
    time_limit: float = 7200.0
    """Seconds after which a run is ended and counts as failed."""
    memory_limit: float = 8192.0
    """MiB of memory above which it is, likewise."""
    retry: bool = False
    """Runs that have failed before are run again."""
    check: bool = True
    """Agents of your own are tried by `textenv check` before anything is run."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code: 0, 1 where runs have failed, or 130 where it was stopped.

    Raises:
        UsageError: what was asked cannot be.
        TextenvError: the folder is in use, or the disk is full; what was done is kept.
    """
    console = console or Console()
    config = parse(arguments)
    command = shlex.join(["textenv", "bench", *arguments])
    start = time.perf_counter()

    from benchmarks.suite.worker import warm_up

    if config.engine == "local":
        warm_up()
    from benchmarks.suite import sweep
    from benchmarks.suite.board import Board, took
    from benchmarks.suite.report import summary_table, write_report
    from benchmarks.suite.results_folder import ResultsFolder

    plan = sweep.plan(config.experiments, config.preset, dataclasses.asdict(config), config.settings)
    for line in plan.left_out:
        console.print(f"left out: {line}", highlight=False, soft_wrap=True)
    with ResultsFolder.open(config.out) as folder:
        there = folder.statuses()
        wanted = {None, "failed"} if config.retry else {None}
        missing = [cell for cell in plan.cells if there.get(cell.id) in wanted]
        for experiment, axes in plan.axes.items():
            folder.check_settings(experiment, axes.settings)
        engine = _engine(config, folder)
        sweep.try_out(missing)
        if config.check:
            sweep.check_own_agents(missing, lambda line: console.print(line, highlight=False, soft_wrap=True))
        folder.note([_asked(command, experiment, axes) for experiment, axes in plan.axes.items()])
        failed = sum(there.get(cell.id) == "failed" for cell in plan.cells if there.get(cell.id) not in wanted)
        which = f" ({failed} failed; --retry runs {'it' if failed == 1 else 'them'} again)" if failed else ""
        console.print(
            f"{len(plan.cells)} runs, {len(plan.cells) - len(missing)} of them there already{which}, {engine.workers} "
            f"at a time; results in {config.out}",
            highlight=False,
            soft_wrap=True,
        )
        board = Board(console, missing, len(plan.cells) - len(missing), engine.workers)
        try:
            with board, _stopping_on_a_polite_kill():
                sweep.run(missing, engine, folder, board)
        except DiskError as error:
            raise DiskError(f"{error} Then go on with: {command}") from error
        except KeyboardInterrupt:
            there = folder.statuses()  # Of the last one the rows may be there though the board has not heard of it.
            kept = sum(there.get(cell.id) not in wanted for cell in missing)
            console.print(
                f"Stopped; {kept} of {len(missing)} runs are kept. Go on with:\n  {command}",
                highlight=False,
                soft_wrap=True,
            )
            return 130
        for cell, why in board.failed:
            line = f"failed: {cell}: {first_line(Exception(why))}"  # The report has the whole of it.
            console.print(line, style="red", highlight=False, soft_wrap=True, markup=False)
        report = write_report(config.out)
        console.print(summary_table(report))
    console.print(f"{took(time.perf_counter() - start)}; report {report.page}", highlight=False, soft_wrap=True)
    if board.failed:
        console.print(f"{len(board.failed)} runs failed; the same command with --retry runs them again")
    return 1 if board.failed else 0


def _asked(command: str, experiment: str, axes: Axes) -> dict[str, Any]:
    """What bench.json keeps of a command, for each of its experiments."""
    return {
        "command": command,
        "experiment": experiment,
        "settings": dict(axes.settings),
        "agents": list(axes.contestants),
        "tasks": list(axes.tasks),
        "raters": list(axes.raters),
    }


def parse(arguments: Sequence[str]) -> BenchConfig:
    """Reads the flags.

    Raises:
        UsageError: a number is out of its range, or a flag is for another engine.
    """
    config = tyro.cli(BenchConfig, prog="textenv bench", description=__doc__, args=list(arguments))
    parted = {name: None if getattr(config, name) is None else _names(getattr(config, name)) for name in LISTS}
    config = dataclasses.replace(config, **parted)  # type: ignore[arg-type]  # The four are tuples.
    for name in ("time_limit", "memory_limit"):
        if not getattr(config, name) > 0:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected more than 0")
    if config.engine == "local" and config.address is not None:
        raise UsageError("--address is that of a Ray cluster; add --engine ray, or leave it out")
    if config.engine == "ray" and config.workers is not None:
        raise UsageError("--workers is for this machine; a Ray cluster runs as many as it has cores")
    return config


@contextmanager
def _stopping_on_a_polite_kill() -> Iterator[None]:
    """A polite kill, as a cluster's scheduler sends it, stops as Ctrl-C does."""
    # Ctrl-C too, which a shell lets the commands that it starts in the background ignore.
    stopping = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in stopping}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for word in words for name in word.split(",") if name)


def _engine(config: BenchConfig, folder: ResultsFolder) -> Engine:
    from benchmarks.suite.engines import LocalEngine
    from benchmarks.suite.worker import Limits

    limits = Limits(config.time_limit, config.memory_limit)
    if config.engine == "local":
        return LocalEngine(folder, limits, config.workers)

    from benchmarks.suite.ray_engine import RayEngine

    return RayEngine(limits, config.address)
