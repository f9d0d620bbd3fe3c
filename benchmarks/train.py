"""`textenv train`: runs RLHF from the reference to the report, or goes on with a run that was stopped."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from transformers.utils import logging as transformers_logging

from agents.listener import Stopped
from agents.rlhf import Loop, RLHFConfig, prepare
from agents.rollout import RolloutConfig
from agents.run_folder import RunFolder
from agents.setting import Setting, settings_class
from benchmarks.progress import Watch, cost_line, result_table, samples_table
from textenv.errors import DiskError, UsageError
from textenv.files import explained
from textenv.products import worthwhile_threads

PROMPTS_SHOWN = 6
RESUMABLE = {"--resume", "--threads", "--checkpoint-seconds"}
"""The flags that do not change what a run comes to."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Where and with how much of the machine."""

    out: Path | None = None
    """Run folder to make; None is runs/<task>-<agent>-seed<seed>-<time>."""
    resume: Path | None = None
    """Run folder to go on with; takes everything else from there."""
    threads: int | None = None
    """Processor threads; None is as many of the cores as the model's products keep busy."""
    checkpoint_seconds: float = 10.0
    """Seconds of learning between checkpoints; a kill loses no more than that."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code: 0, or 130 where it was stopped and can go on.

    Raises:
        UsageError: what was asked cannot be.
        TextenvError: the run failed; what it had done is kept.
    """
    console = console or Console()
    transformers_logging.disable_progress_bar()
    config, options = parse(arguments)
    if not options.checkpoint_seconds >= 0:
        raise UsageError(f"--checkpoint-seconds is {options.checkpoint_seconds}, expected 0 or more")
    if options.resume is None:
        if options.threads is not None and options.threads < 1:
            raise UsageError(f"--threads is {options.threads}, expected 1 or more")
        setting = prepare(config)
        # Threads are fixed before anything is computed, since sums depend on how they are shared out.
        threads = _fitting_threads(setting) if options.threads is None else options.threads
        torch.set_num_threads(threads)
        with _create(setting, options.out, threads) as folder:
            return _run(setting, folder, options, console)
    with RunFolder.open(options.resume) as folder:
        if options.threads not in (None, folder.threads):
            raise UsageError(
                f"the run {folder.path} is fixed to --threads {folder.threads}, so that going on gives the same "
                "weights; leave --threads out"
            )
        if folder.summary is not None:
            console.print(f"The run {folder.path} is finished; this is what it came to.", soft_wrap=True)
            show(folder, console)
            return 0
        torch.set_num_threads(folder.threads)
        setting = prepare(RLHFConfig.from_json(folder.config))
        folder.check_inputs(setting.inputs())
        return _run(setting, folder, options, console)


def _run(setting: Setting, folder: RunFolder, options: Options, console: Console) -> int:
    torch.use_deterministic_algorithms(True)
    console.print(f"run folder {folder.path}", highlight=False, soft_wrap=True)
    again = shlex.join(["textenv", "train", "--resume", str(folder.path)])
    try:
        with explained(folder.path):
            with Watch(console) as watch, _stopping_on_signals(watch):
                Loop(setting, folder, watch, options.checkpoint_seconds).run()
            show(folder, console)
    except DiskError as error:
        raise DiskError(f"{error} Then go on with: {again}") from error
    except (Stopped, KeyboardInterrupt):
        console.print(f"Stopped; what is done is kept. Go on with:\n  {again}", highlight=False, soft_wrap=True)
        return Stopped.exit_code
    return 0


def show(folder: RunFolder, console: Console) -> None:
    """Prints what a finished run came to and writes its report."""
    from benchmarks.report import write_report  # matplotlib takes a second to load.

    summary = folder.summary
    assert summary is not None
    console.print(samples_table(folder.read_rows("samples.parquet")[:PROMPTS_SHOWN]))
    console.print(result_table(summary))
    console.print(cost_line(summary), highlight=False)
    console.print(f"report {write_report(folder.path)}", highlight=False, soft_wrap=True)


def parse(arguments: Sequence[str]) -> tuple[RLHFConfig, Options]:
    """Reads the flags: the loop's, those of the agent that is asked for, and the options.

    Raises:
        UsageError: an unknown agent, or other flags beside --resume.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--agent", default=RLHFConfig.agent)
    agent = first.parse_known_args(list(arguments))[0].agent
    config_class = settings_class(
        agent, (field.name for part in (RLHFConfig, Options) for field in dataclasses.fields(part))
    )
    flat = tyro.conf.arg(name="")
    run: Any = dataclasses.make_dataclass(
        "Run",
        [("algorithm", Annotated[config_class, flat], dataclasses.field(default_factory=config_class))],
        bases=(RLHFConfig,),
        frozen=True,
    )
    verb: Any = dataclasses.make_dataclass(
        "Train",
        [
            ("config", Annotated[run, flat], dataclasses.field(default_factory=run)),
            ("options", Annotated[Options, flat], dataclasses.field(default_factory=Options)),
        ],
    )
    parsed = tyro.cli(verb, prog="textenv train", description=__doc__, args=list(arguments))
    config = RLHFConfig(**{field.name: getattr(parsed.config, field.name) for field in dataclasses.fields(RLHFConfig)})
    options: Options = parsed.options
    if options.resume is not None:
        flags = {word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")}
        others = flags - RESUMABLE
        if others:
            raise UsageError(
                f"--resume goes on with what {options.resume} was asked for; leave {', '.join(sorted(others))} out"
            )
    return config, options


def _create(setting: Setting, out: Path | None, threads: int) -> RunFolder:
    config = setting.config
    now = datetime.now().astimezone()
    name = f"{config.task}-{config.agent}-seed{config.seed}-{now:%Y%m%d-%H%M%S}"
    path = out or Path("runs") / name
    created = now.isoformat(timespec="seconds")
    return RunFolder.create(path, config.to_json(), threads=threads, created=created, inputs=setting.inputs())


def _fitting_threads(setting: Setting) -> int:
    """Threads that a run is the faster for, on the cores that it may use."""
    rows = 1
    for name in ("n_prompts", "group_size"):  # Where an agent has no rollouts, other batches are of about that size.
        rows *= getattr(setting.config.algorithm, name, getattr(RolloutConfig, name))
    return worthwhile_threads(setting.reference.model, rows, len(os.sched_getaffinity(0)))


@contextmanager
def _stopping_on_signals(watch: Watch) -> Iterator[None]:
    """Ctrl-C and a polite kill stop after the current step; a second Ctrl-C stops at once."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        watch.stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
