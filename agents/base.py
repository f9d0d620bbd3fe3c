"""What an agent is, in stable-baselines3's words, and how its class and its settings are checked.

An agent of one's own is one class with the methods of `Agent`; it need not inherit from anything. What
it can use of the environment it is given (a `TextVectorEnv` made with `kl="full"`):

    env.reference                         the language model to start from: take `.copy()`, since the KL is to this one
    env.task.response_length              the most tokens of a response
    env.sample_prompts(count)             prompts to learn from
    env.score(responses, logprobs)        what a whole batch of responses is paid; `token_rewards` is all there is to
                                          learn from, since `gold` is the truth, which is for measuring only
    env.reset(), env.step(action)         the same token by token, as in Gymnasium
    env.beta                              the weight of the KL
    env.pad_id, env.eos_id                the tokens that fill a row and that end a response

`check_agent(MyAgent)`, or `textenv check my_pkg.agent:MyAgent`, tells what is still wrong. The README's
cookbook has a whole agent in one short file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from textenv.errors import UsageError
from textenv.imports import users_code
from textenv.vector_env import TextVectorEnv

Observation: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""`input_ids` and `attention_mask`, each (P+T,) for one environment or (N, P+T) for N of them."""

Action: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
"""`token` and the `logprob` it was chosen with, each () or (N,)."""

Callback: TypeAlias = "Callable[[Any, dict[str, float]], bool]"
"""Called with the agent and its metrics after each iteration; returning False stops `learn`."""


LearnsFrom: TypeAlias = Literal["rewards", "preferences", "demonstrations"]
"""Whether an agent learns from what the environment pays, or from comparisons or good responses given as `data`."""


class Agent(Protocol):
    """Learns a policy over tokens.

    Equal seeds give equal weights: whatever is drawn comes from generators of the agent's own, made
    from the seed, never from the global ones of torch, NumPy or Python.
    """

    config_class: ClassVar[type[Any]]
    """A frozen dataclass with a default for every field; the fields become flags of the command. Fields that name
    files are listed in a class variable `files`: a run goes on only with the same content of them."""

    learns_from: ClassVar[LearnsFrom]
    """May be left out, which means "rewards". An agent that says "preferences" is made with `Preferences` as
    `data`: in the RLHF loop the rater's comparisons of the reference's responses. One that says "demonstrations"
    is made with `Demonstrations`: in the loop the best by the truth of many responses of the reference. No reward
    model is learned for either, its environment pays the gold score, by which the run is judged, and nothing of
    that may be learned from."""

    needs_beta: ClassVar[bool]
    """May be left out. True of an agent whose loss divides or weighs by beta: a run with 0 is refused before it begins,
    as it is for all that learn from preferences."""

    check_task: ClassVar[Callable[[Any, Any, Any], None]]
    """May be left out. Called with config, task and reference before a run begins, to raise `UsageError` where these
    do not go together."""

    num_timesteps: int
    """Response tokens generated or trained on so far."""

    def __init__(self, env: TextVectorEnv, config: Any, seed: int, data: Any = None) -> None:
        """A new agent.

        Args:
            env: what it learns in; `env.reset(seed=seed)` fixes the prompts that will come.
            config: a `config_class`.
            seed: fixes everything that is drawn.
            data: `Preferences` or `Demonstrations`, for agents that learn offline.
        """
        ...

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on learning from `num_timesteps` up to the first iteration that reaches `total_timesteps`.

        An iteration is what lies between two calls of `callback`. Metrics are finite numbers by name; the
        report plots `reward`, `kl` (in nats an episode) and others that our own agents have.
        """
        ...

    def predict(
        self,
        observation: Observation,
        state: None = None,
        episode_start: None = None,
        deterministic: bool = False,
    ) -> tuple[Action, None]:
        """An action for the environment's action space, and no recurrent state.

        Args:
            observation: of one environment, or of N in a batch.
            state: for stable-baselines3's signature; agents here have none.
            episode_start: for stable-baselines3's signature.
            deterministic: take the likeliest token instead of drawing one.
        """
        ...

    def logprobs(self, observation: Observation) -> Float[Tensor, "N V"]:
        """The distribution that `predict` draws the next token from, at each of N observations.

        Every result is measured on samples of it. An agent that also has an attribute `language_model`
        with the same distribution is measured faster, with a KV cache. One that has neither gets its gold
        score and its reward only.
        """
        ...

    def save(self, path: Path) -> None:
        """Writes a folder with all that is needed to go on exactly, as safetensors and JSON.

        That is weights, optimiser, generators, `num_timesteps`, and of the environment what the agent
        has moved: its `np_random`, which draws the prompts, and `beta`. An agent that learns from `data`
        saves it too, since `load` is not given it. `agents.checkpoint` helps.
        """
        ...

    @classmethod
    def load(cls, path: Path, env: TextVectorEnv) -> Self:
        """The agent that was saved in a folder, acting in `env`."""
        ...


def check_agent_class(agent_class: Any, name: str) -> type[Any]:
    """The class unchanged, if it has what an agent's class has.

    Args:
        agent_class: whatever was named.
        name: what messages call it.

    Raises:
        UsageError: it is no class, lacks a method, learns from nothing that is known, or its config class is not one.
    """
    if not isinstance(agent_class, type):
        raise UsageError(f"{name!r} is a {type(agent_class).__name__}, expected the class of an agent")
    missing = [
        method for method in ("learn", "predict", "save", "load") if not callable(getattr(agent_class, method, 0))
    ]
    if missing:
        raise UsageError(
            f"{name!r} is no agent: it lacks {', '.join(missing)}; agents.base.Agent tells what an agent has"
        )
    learns_from(agent_class)
    config_class = getattr(agent_class, "config_class", None)
    if not isinstance(config_class, type) or not dataclasses.is_dataclass(config_class):
        raise UsageError(
            f"{name!r} has no config_class; give it the class attribute config_class, a frozen dataclass with a "
            "default for every field"
        )
    without = [field.name for field in dataclasses.fields(config_class) if field.init and _has_no_default(field)]
    if without:
        raise UsageError(
            f"{config_class.__name__}, the config_class of {name!r}, has no default for {', '.join(without)}; give "
            "every field one"
        )
    with users_code(f"the config_class of {name!r} could not be made", "expected are defaults that go together"):
        config_class()
    return agent_class


def learns_from(agent_class: type[Any]) -> LearnsFrom:
    """What an agent of a class learns from: what it says of itself, or rewards.

    Raises:
        UsageError: it says something else.
    """
    said: Any = getattr(agent_class, "learns_from", "rewards")
    if said not in get_args(LearnsFrom):
        raise UsageError(
            f"{agent_class.__name__}.learns_from is {said!r}, expected {' or '.join(map(repr, get_args(LearnsFrom)))}"
        )
    source: LearnsFrom = said
    return source


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


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


def check_choice(config: object, field: str, choices: Any) -> None:
    """Refuses a setting that is none of the values of a `Literal`, naming the field, its value and what there is.

    Raises:
        UsageError: the value is none of them.
    """
    value = getattr(config, field)
    if value not in get_args(choices):
        known = " or ".join(map(repr, get_args(choices)))
        raise UsageError(f"{type(config).__name__}.{field} is {value!r}, expected {known}")
