"""An agent's class under test: making agents of it that know nothing of each other, and telling them apart."""

from __future__ import annotations

import copy
import dataclasses
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.base import learns_from
from agents.checks.exact_worth import exact_worth
from textenv.errors import TextenvError
from textenv.responses import Responses
from textenv.rewards import GoldReward
from textenv.tasks.base import Gold
from textenv.tasks.exact import Exact
from textenv.vector_env import TextVectorEnv

FILES = {".safetensors", ".json"}
"""Endings of what an agent may save."""
STRIDE = 13
"""Agents are compared in every 13th state, 479 of them."""


class Broken(TextenvError):
    """The agent breaks the contract; the message says how."""


class Untested(TextenvError):
    """There is nothing to test; the message says why."""


class PoisonedExact(Exact):
    """Exact-v0 with false gold values everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self._false = torch.Generator().manual_seed(0)

    def gold(self, responses: Responses) -> Gold:
        """Values that have nothing to do with the responses."""
        attributes = torch.rand((len(responses), len(self.attribute_names)), generator=self._false)
        return Gold(attributes.mean(dim=1) * 10 - 5, attributes.mean(dim=1), attributes)


class Trial:
    """One agent's class under test, and what earlier checks have found out about it."""

    trained: Any = None
    """An agent that has learned a little; the check of `learn` sets it."""
    trained_in: TextVectorEnv
    """Its environment."""
    iteration: int
    """Tokens of its first iteration."""
    predicts = False
    """Whether `predict` works."""
    tells = False
    """Whether `logprobs` works."""

    def __init__(self, agent_class: Any, config: Any, data: Any, seed: int, tokens: int) -> None:
        self.agent_class = agent_class
        self.config = config
        self._data = data
        self.seed = seed
        self.tokens = tokens
        self.worth = exact_worth()

    @property
    def data(self) -> Any:
        """What the agent is made with: what was given, or the truth's comparisons or choices if it learns from such."""
        if self._data is None and learns_from(self.agent_class) == "preferences":
            return self.worth.preferences
        if self._data is None and learns_from(self.agent_class) == "demonstrations":
            return self.worth.demonstrations
        return self._data

    def env(self, *, poisoned: bool = False) -> TextVectorEnv:
        """A new environment as the RLHF loop makes them, with a reference that nobody has touched."""
        task: Any = PoisonedExact() if poisoned else self.worth.task
        reference = dataclasses.replace(self.worth.reference, model=copy.deepcopy(self.worth.reference.model))
        reward = GoldReward(self.worth.task)
        return TextVectorEnv(task, reward_function=reward, reference=reference, kl="full")

    def new(self, env: TextVectorEnv | None = None, *, seed: int | None = None, global_seed: int = 0) -> Any:
        """A new agent, made in a known global random state."""
        env = env or self.env()
        seed_globally(global_seed)
        data = {} if self.data is None else {"data": self.data}
        return self.agent_class(env, self.config, self.seed if seed is None else seed, **data)

    def learned(self, env: TextVectorEnv | None = None, *, seed: int | None = None, global_seed: int = 0) -> Any:
        """A new agent after about three iterations."""
        self.needs_trained()
        agent = self.new(env, seed=seed, global_seed=global_seed)
        agent.learn(3 * self.iteration)
        return agent

    @cached_property
    def usual_behaviour(self) -> Tensor:
        """What others are compared with: the behaviour of an agent that has learned."""
        return self.behaviour(self.learned())

    def needs_trained(self) -> None:
        """Leaves a check out where no agent has come through an iteration."""
        if self.trained is None:
            raise Untested("not tested, since learn did not come through an iteration")

    def behaviour(self, agent: Any) -> Tensor:
        """What tells whether two agents are the same: their distributions, or their draws, in many states."""
        if self.tells:
            return self.worth.logprobs(agent, every=STRIDE)
        if self.predicts:
            return torch.as_tensor(agent.predict(self.worth.some_states(STRIDE))[0]["token"])
        raise Untested("not tested, since neither predict nor logprobs passed, by which agents are compared")

    def saved_and_loaded(self, agent: Any) -> Any:
        """The agent that comes back from a folder."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agent"
            agent.save(path)
            if not path.is_dir():
                raise Broken("save(path) made no folder at path; write a folder there, as agents.checkpoint.save does")
            wrong = sorted(file.name for file in path.rglob("*") if file.is_file() and file.suffix not in FILES)
            if wrong:
                raise Broken(
                    f"save wrote {', '.join(wrong)}; expected are .safetensors and .json only, since other formats can "
                    "run code when they are loaded. Write tensors with safetensors and the rest as JSON, as "
                    "agents.checkpoint.save does"
                )
            return self.agent_class.load(path, self.env())


def seed_globally(seed: int) -> None:
    """Seeds everybody's generators, as the code under test might."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def global_state() -> dict[str, Any]:
    """The state of everybody's generators, as values that can be compared."""
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
        "random": random.getstate(),
    }


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Whoever calls the check finds his global random state as they left it."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
