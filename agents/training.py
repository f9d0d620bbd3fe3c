"""One agent's learning in a run folder: checkpoints, metrics, and going on after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from agents.guards import Guard, tells_all
from agents.listener import Listener, Stopped
from agents.run_folder import FAILURE, Row, RunFolder
from textenv.errors import DiskError, TextenvError
from textenv.vector_env import TextVectorEnv

STAGE = "reinforce"
MOST_CHECKPOINTING = 0.05
"""Share of the time that writing checkpoints may take; large models are written less often."""


class Training(NamedTuple):
    """Where an agent learns, who is told, and how much a kill may lose."""

    folder: RunFolder
    listener: Listener
    checkpoint_seconds: float
    """Least time between two checkpoints."""
    max_kl: float | None = None
    """As `Guard` has it."""

    def run(
        self, agent_class: Any, env: TextVectorEnv, config: Any, seed: int, total_timesteps: int, data: Any = None
    ) -> Any:
        """The agent after `total_timesteps`, new or from the folder's last checkpoint.

        Args:
            agent_class: what learns.
            env: what it learns in.
            config: its settings.
            seed: fixes what it draws.
            total_timesteps: response tokens.
            data: what a new agent that learns offline is made with; one from a checkpoint has it.

        Raises:
            Stopped: the listener asked for it; what was done is kept.
            DiskError: a checkpoint could not be written; the last one is kept.
            TextenvError: a number is not finite, the policy has collapsed, or the reward failed; what was learned
                before it is kept.
        """
        folder, listener = self.folder, self.listener
        checkpoint = folder.latest_checkpoint()
        if checkpoint is None:
            agent = agent_class(env, config, seed, **({} if data is None else {"data": data}))
            folder.save_checkpoint(agent.num_timesteps, agent.save, [])
        else:
            agent = agent_class.load(checkpoint, env)
        if folder.finished(STAGE):
            return agent
        (folder.path / FAILURE).unlink(missing_ok=True)

        earlier = folder.metrics()
        before = earlier[-1]["seconds"] if earlier else 0.0
        start = time.perf_counter()
        next_checkpoint = start + self.checkpoint_seconds
        guard = Guard(env, self.max_kl, seed)
        told: Mapping[str, Any] = earlier[-1] if earlier else {}
        counter = agent.num_timesteps
        rows: list[Row] = []
        refused: list[Row] = []

        def after_iteration(agent: Any, numbers: dict[str, float]) -> bool:
            nonlocal counter, next_checkpoint, told
            now = time.perf_counter()
            refused.append({"timesteps": agent.num_timesteps, "seconds": before + now - start, **numbers})
            guard.check(numbers)
            rows.append(refused.pop())
            counter, told = agent.num_timesteps, numbers
            listener.progress(STAGE, agent.num_timesteps, total_timesteps, numbers)
            stopping = listener.stopping()
            if stopping or now > next_checkpoint:
                keep(agent)
                written = time.perf_counter()
                next_checkpoint = written + max(self.checkpoint_seconds, (written - now) / MOST_CHECKPOINTING)
            return not stopping

        def keep(agent: Any) -> None:
            if not tells_all(told):
                guard.check_policy(agent)
            folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
            rows.clear()

        listener.progress(STAGE, agent.num_timesteps, total_timesteps, {})
        try:
            agent.learn(total_timesteps, after_iteration)
            if agent.num_timesteps >= total_timesteps:
                keep(agent)
        except DiskError:
            raise
        except TextenvError as error:
            # An agent that has moved on since the last good row may be what went bad.
            if not refused and agent.num_timesteps == counter and guard.finds_sound(agent):
                folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
                raise _given_up(error, folder, [], known_good=True) from error
            # A rollout tells of the weights before its update: the first row vouches for the newest checkpoint.
            raise _given_up(error, folder, rows + refused, known_good=bool(rows)) from error
        if agent.num_timesteps < total_timesteps:
            raise Stopped("the run was stopped")
        seconds = before + time.perf_counter() - start
        folder.finish_stage(STAGE, seconds=seconds)
        listener.end(STAGE, seconds)
        return agent


def _given_up(error: TextenvError, folder: RunFolder, lost: list[Row], *, known_good: bool) -> TextenvError:
    """Leaves the newest checkpoint that is known to be good, and says which it is.

    Args:
        error: what stopped training.
        folder: the run's.
        lost: metrics rows that belong to no checkpoint.
        known_good: whether the newest checkpoint is; otherwise the one before is.
    """
    if not known_good and len(folder.checkpoints()) > 1:
        lost = folder.drop_checkpoint() + lost
        known_good = True
    newest = folder.checkpoints()[-1]
    left = (
        f"The last good checkpoint is {newest}"
        if known_good
        else f"No checkpoint is known to be good; the one there is, from the start, is {newest}"
    )
    if lost:
        folder.write_rows(FAILURE, lost)
        rest = f" The metrics since then are in {folder.path / FAILURE}."
    else:
        rest = ""
    return TextenvError(
        f"{error}. Start a new run, since --resume would most likely come to the same again. {left}; textenv play "
        f"{folder.path} answers from it.{rest}"
    )
