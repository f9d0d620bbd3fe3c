"""One agent's learning in a run folder: checkpoints, metrics, and going on after a kill."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch

from agents.finite import require_finite
from agents.guards import require_no_collapse
from agents.listener import Listener, Stopped
from agents.run_folder import Row, RunFolder
from textenv.errors import DiskError, TextenvError
from textenv.tasks.base import prompts_of
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

        earlier = folder.metrics()
        before = earlier[-1]["seconds"] if earlier else 0.0
        start = time.perf_counter()
        next_checkpoint = start + self.checkpoint_seconds
        rows: list[Row] = []

        def after_iteration(agent: Any, numbers: dict[str, float]) -> bool:
            nonlocal next_checkpoint
            require_finite({name: torch.tensor(value) for name, value in numbers.items()})
            require_no_collapse(numbers, env)
            now = time.perf_counter()
            rows.append({"timesteps": agent.num_timesteps, "seconds": before + now - start, **numbers})
            listener.progress(STAGE, agent.num_timesteps, total_timesteps, numbers)
            stopping = listener.stopping()
            if stopping or now > next_checkpoint:
                folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
                rows.clear()
                written = time.perf_counter()
                next_checkpoint = written + max(self.checkpoint_seconds, (written - now) / MOST_CHECKPOINTING)
            return not stopping

        listener.progress(STAGE, agent.num_timesteps, total_timesteps, {})
        try:
            agent.learn(total_timesteps, after_iteration)
        except DiskError:
            raise
        except TextenvError as error:
            # An agent whose counter has moved on since the last good row may be what went bad.
            if rows and rows[-1]["timesteps"] == agent.num_timesteps and _is_sound(agent, env):
                folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
            raise TextenvError(
                f"{error}. Start a new run, since --resume would most likely come to the same again. The last good "
                f"checkpoint is {folder.checkpoints()[-1]}; textenv play {folder.path} answers from it."
            ) from error
        if agent.num_timesteps < total_timesteps:
            raise Stopped("the run was stopped")
        folder.save_checkpoint(agent.num_timesteps, agent.save, rows)
        seconds = before + time.perf_counter() - start
        folder.finish_stage(STAGE, seconds=seconds)
        listener.end(STAGE, seconds)
        return agent


def _is_sound(agent: Any, env: TextVectorEnv) -> bool:
    """Whether the agent still gives probabilities: weights that overflow give NaN without being NaN.

    Where states overflow only once there are several to attend to, that shows in the midst of a response.
    """
    prompts = prompts_of(env.task, env.task.fixed_prompts("validation", 4))
    ids, mask = prompts.ids, prompts.mask
    for _ in range(env.task.response_length):
        logprobs = torch.as_tensor(agent.logprobs({"input_ids": ids.numpy(), "attention_mask": mask.numpy()}))
        if bool(logprobs.isnan().any()):
            return False
        ids = torch.cat([ids, logprobs.argmax(dim=1, keepdim=True)], dim=1)
        mask = torch.nn.functional.pad(mask, (0, 1), value=True)
    return True
