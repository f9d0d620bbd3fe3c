"""The process of one contestant: runs it one iteration at a time, whenever it is told to.

The parent writes a job and then "go" for every iteration to standard input, and reads one JSON object a
line from standard output. What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.speed.flops import Work
from benchmarks.speed.plan import Contestant, Shape

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import PreTrainedModel

    from textenv.responses import Responses
    from textenv.tasks.base import RewardFunction

LIBRARIES = ("torch", "transformers", "stable_baselines3", "trl")


class Finished(BaseException):
    """The parent has seen enough; no library may catch it."""


@dataclass
class Lap:
    """One iteration, as it is measured."""

    wall: float
    """Seconds on the clock on the wall."""
    cpu: float
    """Seconds of processor time, of all threads together."""
    rollout_wall: float
    """Seconds until the last response of the iteration was paid; what is left is the update."""
    rollout_cpu: float
    tokens: int
    """Response tokens, without padding."""
    steps: int
    """Optimiser steps, as torch counts them."""
    flops: int = 0
    """Useful operations, where they are counted."""
    bytes: int = 0
    """Bytes that had to be read for them."""
    share: float | None = None
    """Of the optimum on Concierge after the iteration, where it was asked for; measured off the clock."""


class Clock:
    """Runs while a contestant works; between two iterations it stands still.

    Args:
        send: tells the parent.
        go: waits until the parent wants another iteration, or raises `Finished`.
        judge: gives a model's share of the optimum.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        go: Callable[[], None],
        judge: Callable[[PreTrainedModel], float] | None = None,
    ) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        from benchmarks.speed.executed import Operations

        self.send, self.go, self.judge = send, go, judge
        self._steps = 0
        self._warm = judge is not None
        self._executed = Operations()
        self._stack = ExitStack()
        self._counting = register_optimizer_step_post_hook(self._count)
        self.start()

    def start(self) -> None:
        """Begins an iteration."""
        self._stack.close()
        if not self._warm:
            self._executed.count = 0
            self._stack.enter_context(self._executed)
        self._tokens, self._first_step = 0, self._steps
        self._began = self._paid = (time.perf_counter(), time.process_time())

    def paid(self, tokens: int) -> None:
        """Responses of so many tokens have been scored."""
        self._tokens += tokens
        self._paid = (time.perf_counter(), time.process_time())

    def lap(
        self, tokens: int = 0, model: PreTrainedModel | None = None, work: Callable[[], Work] | None = None
    ) -> None:
        """Ends an iteration: tells what it took, and waits for the next.

        The first iteration warms the caches, and of it only the operations are told, unless each is judged: then it
        counts like any other.

        Args:
            tokens: beside those that were told with `paid`.
            model: what is judged.
            work: tells what was computed and read; called off the clock.

        Raises:
            Finished: there is to be no other.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        self._stack.close()
        lap = Lap(
            wall=wall - self._began[0],
            cpu=cpu - self._began[1],
            rollout_wall=self._paid[0] - self._began[0],
            rollout_cpu=self._paid[1] - self._began[1],
            tokens=self._tokens + tokens,
            steps=self._steps - self._first_step,
            **(work()._asdict() if work else {}),
        )
        if self.judge is not None and model is not None:
            lap.share = self.judge(model)
        if self._warm:
            self.send({"kind": "lap", **asdict(lap)})
        else:
            self._warm = True
            executed = self._executed.count / lap.tokens if lap.tokens else None
            self.send({"kind": "ready", "executed": executed})
        self.go()
        self.start()

    def close(self) -> None:
        """Stops counting."""
        self._stack.close()
        self._counting.remove()

    def _count(self, *_: Any) -> None:
        self._steps += 1


class Watched:
    """A reward function whose calls end the rollout.

    Args:
        reward: pays for responses.
        clock: is told of them.
    """

    def __init__(self, reward: RewardFunction, clock: Clock) -> None:
        self.name, self._reward, self._clock = reward.name, reward, clock

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """What the reward function says."""
        scores = self._reward(responses)
        self._clock.paid(int(responses.mask.sum()))
        return scores


def main() -> None:
    """Reads the job and runs it until the parent closes the pipe."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    job = json.loads(sys.stdin.readline())
    try:
        run(Contestant(**job["contestant"]), Shape(**job["shape"]), job["threads"], job["judged"], send, sys.stdin)
    except Finished:
        pass
    except ImportError as error:
        send({"kind": "missing", "message": str(error)})
        return
    except Exception as error:  # Of any library: told in its row, and the other contestants go on.
        send({"kind": "failed", "message": f"{type(error).__name__}: {error}"})
        raise
    send({"kind": "end", "peak_mib": peak_mib(), "versions": versions()})


def run(
    contestant: Contestant,
    shape: Shape,
    threads: int,
    judged: bool,
    send: Callable[[dict[str, Any]], None],
    orders: TextIO,
) -> None:
    """Runs a contestant until the orders end.

    Args:
        contestant: who.
        shape: on what.
        threads: of torch.
        judged: whether each iteration's model is judged.
        send: tells the parent.
        orders: a line for every iteration.

    Raises:
        Finished: the orders have ended.
        ImportError: a library is not installed.
    """
    module, _, name = contestant.function.partition(":")
    function = getattr(importlib.import_module(module), name)

    import torch

    from benchmarks.speed.workload import Workload, optimum_judge

    torch.set_num_threads(threads)
    workload = Workload.of(shape)

    def go() -> None:
        if not orders.readline():
            raise Finished

    clock = Clock(send, go, optimum_judge(workload) if judged else None)
    try:
        if judged:
            send({"kind": "ready"})
            go()
        function(workload, clock)
    finally:
        clock.close()


def peak_mib() -> float:
    """The most memory that this process has held, in MiB.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def versions() -> dict[str, str]:
    """The versions of the libraries that have been imported."""
    found = {}
    for library in LIBRARIES:
        if library in sys.modules:
            try:
                found[library] = version(library)
            except PackageNotFoundError:
                found[library] = "unknown"
    return found


if __name__ == "__main__":
    main()
