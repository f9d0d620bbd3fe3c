"""Text generation as a vector environment: N episodes side by side, in batches throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float
from torch import Tensor

from textenv.actions import KL, action_space, observation_space, read_actions
from textenv.episodes import EpisodeAttributes, Episodes, Granularity, Infos, Observation
from textenv.episodes import Scores as Scores
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.stepwise import Rows
from textenv.tasks.base import RewardFunction, Split, Task, prompts_of

Flags = npt.NDArray[np.bool_]


class TextVectorEnv(EpisodeAttributes, VectorEnv[Observation, Any, npt.NDArray[Any]]):
    """N of `TextEnv`, paid in batches: same seeds and actions, same observations, ends and rewards.

    Environment i of `reset(seed=s)` is a `TextEnv` of `reset(seed=s + i)`. All three of Gymnasium's
    autoreset modes work; with `AutoresetMode.DISABLED`, `reset(options={"reset_mask": (N,) bool})`
    begins new episodes in some environments.

    For rollouts in lockstep, `reset(options={"group_size": k})` gives k environments in a row the
    same prompt, and `score` pays a whole batch of responses at once, without stepping.

    Args:
        task: a name of `textenv.tasks.TASKS`, "module:Class", or a task.
        num_envs: N.
        autoreset_mode: when an ended episode is followed by the next one.

    The other arguments are those of `TextEnv`.
    """

    def __init__(
        self,
        task: str | Task = "concierge",
        *,
        num_envs: int = 1,
        reward_function: RewardFunction | None = None,
        reference: LanguageModel | None = None,
        beta: float | None = None,
        kl: KL = "reference",
        reward: Granularity = "token",
        split: Split = "train",
        missing_eos_penalty: float = 0.0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs is {num_envs}; it must be 1 or more")
        if split not in get_args(Split):
            raise UsageError(f"split is {split!r}; it must be one of {', '.join(get_args(Split))}")
        self.episodes = Episodes(
            task,
            num_envs,
            reward_function=reward_function,
            reference=reference,
            beta=beta,
            kl=kl,
            reward=reward,
            missing_eos_penalty=missing_eos_penalty,
        )
        self.num_envs = num_envs
        self.split: Split = split
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": []}
        self._vocab_size = self.reference.vocab_size
        self.single_observation_space = observation_space(self.episodes.ids.shape[1], self._vocab_size)
        self.single_action_space = action_space(self._vocab_size, kl)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.arange(num_envs)
        self._started = np.zeros(num_envs, dtype=np.bool_)
        self._generators: list[np.random.Generator | None] = [None] * num_envs

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: s seeds environment i with s + i, and `np_random` with s; a sequence gives each its own.
            options: `group_size`: k neighbours get one prompt (drawn by the first of them);
                `reset_mask`: (N,) booleans, the environments that begin a new episode.

        Raises:
            UsageError: an option or a seed cannot be used.
        """
        seeds = self._seeds(seed)
        rows, group_size = self._read_options(dict(options or {}))
        super().reset(seed=seeds[0])
        for row in rows:
            if seeds[row] is not None:
                self._generators[row] = seeding.np_random(seeds[row])[0]
        self._begin(rows, group_size)
        return self.episodes.observation(), {}

    def step(self, actions: Any) -> tuple[Observation, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Appends one token to each running response, and pays for it.

        Raises:
            UsageError: the actions are not in the action space, or an episode is not running.
            TextenvError: the reward function failed.
        """
        acting = self._acting()
        tokens, logprobs = read_actions(
            actions, self.kl, self._vocab_size, (self.num_envs,), acting, self.episodes.describe
        )
        resting = self._resting()
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        if len(acting):
            advance = self.episodes.advance(acting, tokens, logprobs)
            rewards[acting], terminated[acting] = advance.rewards, advance.ended
            infos = self._collect(acting[advance.ended], advance.infos)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            resting = self._resting()
        if len(resting):
            self._begin(resting)
        return self.episodes.observation(), rewards, terminated, np.zeros_like(terminated), infos

    def sample_prompts(self, count: int) -> Prompts:
        """Draws prompts of the split from `np_random`, which `reset(seed=...)` seeds."""
        return prompts_of(self.task, self.task.sample_prompts(self.split, count, self.np_random))

    def score(self, responses: Responses, logprobs: Float[Tensor, "B T"]) -> Scores:
        """Pays a batch of whole responses at once: the same numbers as stepping through them.

        Args:
            responses: B = N·k of them, to any prompts of the task.
            logprobs: log-probability of each token under the policy; not read with kl="reference".

        Raises:
            UsageError: the responses or the log-probabilities could not have come from stepping.
            TextenvError: the reward function failed.
        """
        return self.episodes.score(responses, logprobs)

    def _acting(self) -> Rows:
        """The environments that take an action now; with autoreset the others are reset instead."""
        if not self._started.all():
            raise UsageError(
                f"step was called before reset of environment {int(self._started.argmin())}; call reset first"
            )
        alive = self.episodes.alive
        if self.autoreset_mode == AutoresetMode.DISABLED and not alive.all():
            raise UsageError(
                f"{self.episodes.describe(int(alive.argmin()))}: the episode has ended and autoreset is disabled; "
                'begin another with reset(options={"reset_mask": terminated})'
            )
        return np.flatnonzero(alive)

    def _resting(self) -> Rows:
        """The environments whose episode has ended."""
        return np.flatnonzero(~self.episodes.alive)

    def _collect(self, rows: Rows, infos: Infos) -> dict[str, Any]:
        """The infos of the environments that have ended, in the format that Gymnasium gives those of single ones."""
        if not len(rows):
            return {}
        collected: dict[str, Any] = {}
        for name, values in infos.items():
            nothing = None if values.dtype == object else 0
            batch = np.full((self.num_envs, *values.shape[1:]), nothing, dtype=values.dtype)
            batch[rows] = values
            collected |= {name: batch, f"_{name}": self._flags(rows)}
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            return collected
        final_observations = np.full(self.num_envs, None, dtype=object)
        final = self.episodes.observation(rows)
        for index, row in enumerate(rows):
            final_observations[row] = {name: batch[index] for name, batch in final.items()}
        return {
            "final_obs": final_observations,
            "_final_obs": self._flags(rows),
            "final_info": collected,
            "_final_info": self._flags(rows),
        }

    def _flags(self, rows: Rows) -> Flags:
        flags = np.zeros(self.num_envs, dtype=np.bool_)
        flags[rows] = True
        return flags

    def _begin(self, rows: Rows, group_size: int = 1) -> None:
        prompts = []
        for leader in rows[::group_size]:
            generator = self._generators[leader]
            if generator is None:
                generator = self._generators[leader] = seeding.np_random()[0]
            prompts += self.task.sample_prompts(self.split, 1, generator) * group_size
        self.episodes.begin(rows, prompts)
        self._started[rows] = True

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + index for index in range(self.num_envs)]
        if not isinstance(seed, Sequence | np.ndarray):
            raise UsageError(f"seed is {seed!r}; it must be an integer, a list of {self.num_envs} of them, or None")
        if len(seed) != self.num_envs:
            raise UsageError(f"{len(seed)} seeds were given; {self.num_envs} environments need one each")
        return [None if each is None else int(each) for each in seed]

    def _read_options(self, options: dict[str, Any]) -> tuple[Rows, int]:
        """The environments to begin anew, and how many of them share a prompt."""
        group_size, mask = options.pop("group_size", 1), options.pop("reset_mask", None)
        if options:
            raise UsageError(f"unknown reset options {sorted(options)}; there are 'group_size' and 'reset_mask'")
        if not isinstance(group_size, int | np.integer) or group_size < 1 or self.num_envs % group_size:
            raise UsageError(
                f"group_size is {group_size!r}; it must divide the number of environments, {self.num_envs}"
            )
        if mask is None:
            return self._all, int(group_size)
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise UsageError(f"reset_mask must be a numpy array of {self.num_envs} booleans; it is {mask!r}")
        groups = mask.reshape(-1, group_size)
        if not mask.any() or (groups.any(axis=1) != groups.all(axis=1)).any():
            raise UsageError("reset_mask must be true somewhere, and alike in all environments of a group")
        return np.flatnonzero(mask), int(group_size)


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(repr(each.value) for each in AutoresetMode)
        raise UsageError(f"autoreset_mode is {mode!r}; it must be one of {known}") from error
