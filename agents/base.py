"""What an agent is, in stable-baselines3's words, and how its settings are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor

from textenv.errors import UsageError
from textenv.vector_env import TextVectorEnv

Observation: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""`input_ids` and `attention_mask`, each (P+T,) for one environment or (N, P+T) for N of them."""

Action: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
"""`token` and the `logprob` it was chosen with, each () or (N,)."""

Callback: TypeAlias = "Callable[[Any, dict[str, float]], bool]"
"""Called with the agent and its metrics after each iteration; returning False stops `learn`."""


class Agent(Protocol):
    """Learns a policy over tokens; built as `Agent(env, config, seed, data=None)`."""

    num_timesteps: int
    """Response tokens generated or trained on so far."""

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on learning from `num_timesteps` up to the first iteration that reaches `total_timesteps`."""
        ...

    def predict(
        self,
        observation: Observation,
        state: None = None,
        episode_start: None = None,
        deterministic: bool = False,
    ) -> tuple[Action, None]:
        """An action for the environment's action space, and no recurrent state."""
        ...

    def logprobs(self, observation: Observation) -> Float[Tensor, "N V"]:
        """The distribution that the agent draws its next token from."""
        ...

    def save(self, path: Path) -> None:
        """Writes a folder with all that is needed to go on exactly."""
        ...

    @classmethod
    def load(cls, path: Path, env: TextVectorEnv) -> Self:
        """The agent that was saved in a folder, acting in `env`."""
        ...


def check_range(
    config: object, field: str, low: float, high: float = math.inf, *, low_included: bool = True, integer: bool = False
) -> None:
    """Refuses a setting outside of its range, naming the field, its value and the range.

    Raises:
        UsageError: the value is not a number (not a whole one, with `integer`), or lies outside.
    """
    value = getattr(config, field)
    kinds = (int,) if integer else (int, float)
    number = isinstance(value, kinds) and not isinstance(value, bool) and not math.isnan(value)
    if not number or not (low <= value <= high) or math.isinf(value) or (value == low and not low_included):
        bracket, end = "[" if low_included else "(", f"{high:g}]" if math.isfinite(high) else "inf)"
        kind = "a whole number" if integer else "a number"
        raise UsageError(f"{type(config).__name__}.{field} is {value!r}, expected {kind} in {bracket}{low:g}, {end}")
