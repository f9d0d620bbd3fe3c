"""Contestants in processes of their own, who take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.plan import Race, Start

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from benchmarks.speed.worker import main; main()")
LOG_LINES = 4


@dataclass
class Result:
    """What a contestant came to."""

    start: Start
    laps: list[dict[str, Any]] = field(default_factory=list)
    """`benchmarks.speed.worker.Lap` of every iteration."""
    executed: float | None = None
    """Floating-point operations a token in the iteration that does not count, padding and repeated work included."""
    peak_mib: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    missing: str | None = None
    """What its libraries said when they were not there."""
    failed: str | None = None


class Runner:
    """The parent's end of a contestant's process.

    Args:
        result: where its laps are written.
        race: how it is run.
        folder: in which the package for TRL's PPO lies, where there is one.
    """

    def __init__(self, result: Result, race: Race, folder: Path | None) -> None:
        self.result = result
        start = result.start
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        if start.contestant.folder and folder is not None:
            paths.insert(0, str(folder.absolute()))
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "OMP_NUM_THREADS": str(race.threads),
                "MKL_NUM_THREADS": str(race.threads),
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_OFFLINE": "1",
                "TRL_EXPERIMENTAL_SILENCE": "1",
            },
            start_new_session=True,  # Ctrl-C is for the parent, which keeps the rows.
        )
        self._say(
            {
                "contestant": asdict(start.contestant),
                "shape": asdict(start.shape),
                "threads": race.threads,
                "judged": race.target is not None,
            }
        )
        self.running = False

    def ready(self) -> None:
        """Waits until its first iteration, which does not count, is done."""
        message = self._hear()
        self.running = bool(message["kind"] == "ready")
        self.result.executed = message.get("executed")

    def lap(self) -> bool:
        """One iteration; whether there was one."""
        if self.running:
            self._write("go")
            message = self._hear()
            self.running = bool(message.pop("kind") == "lap")
            if self.running:
                self.result.laps.append(message)
        return self.running

    def stop(self) -> None:
        """Lets the contestant end and asks for its memory."""
        if self.running:
            self.running = False
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._hear()

    def kill(self) -> None:
        """Ends the process however it stands."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._log.close()

    def _say(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message))

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # What it died of is read next.
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        """The next message; what ends a contestant is put down in its result."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        message: dict[str, Any] = json.loads(line) if line else {"kind": "failed", "message": self._last_words()}
        if message["kind"] == "missing":
            self.result.missing = message["message"]
        elif message["kind"] == "failed":
            self.result.failed = message["message"]
        elif message["kind"] == "end":
            self.result.peak_mib, self.result.versions = message["peak_mib"], message["versions"]
        return message

    def _last_words(self) -> str:
        self._log.seek(0)
        return "its process died: " + " | ".join(self._log.read().split("\n")[-LOG_LINES:])


def run(race: Race, results: Sequence[Result], folder: Path | None, told: Callable[[str, int], None]) -> None:
    """Runs a race in rounds, in which everybody has one iteration in the same order.

    Args:
        race: who runs.
        results: one for each start, where laps are written as they are made, so that an interruption loses none.
        folder: with the package for TRL's PPO.
        told: called with who is next, and in which round (0 for getting ready).
    """
    with ExitStack() as stack:
        runners = []
        for result in results:
            told(result.start.contestant.name, 0)
            runners.append(stack.enter_context(_running(result, race, folder)))
        number = 0
        while any(_goes_on(runner, race, number) for runner in runners):
            number += 1
            for runner in runners:
                if _goes_on(runner, race, number - 1):
                    told(runner.result.start.contestant.name, number)
                    runner.lap()


def _goes_on(runner: Runner, race: Race, done: int) -> bool:
    if race.target is None:
        return runner.running and done < race.rounds
    laps = runner.result.laps
    return runner.running and not (laps and laps[-1]["share"] >= race.target)


@contextmanager
def _running(result: Result, race: Race, folder: Path | None) -> Iterator[Runner]:
    runner = Runner(result, race, folder)
    try:
        runner.ready()
        yield runner
        runner.stop()
    finally:
        runner.kill()
