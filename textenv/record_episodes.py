"""Wrappers that write each finished episode to Parquet: its texts, tokens, rewards and scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from textenv.errors import UsageError
from textenv.files import write_atomically
from textenv.tasks.base import Task
from textenv.token_texts import decode

SCHEMA = pa.schema(
    [
        pa.field("episode", pa.int64(), nullable=False),
        pa.field("environment", pa.int32(), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("response_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("token_rewards", pa.list_(pa.float64()), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("gold", pa.float64()),
        pa.field("utility", pa.float64()),
        pa.field("end", pa.string(), nullable=False),
    ]
)
"""Columns of a recording, one row an episode.

`episode` counts the rows from 0, in the order in which the episodes ended; `environment` is the index
in a vector environment, else 0; `seed` is the one that this environment was last reset with, null
where it never was with any. `response` is the text that rewards score. `token_rewards` has what each
token was paid, the score included at the last. `end` is "eos", "length", or "truncated" where a time
limit cut the episode: then there is no `score`, and no `gold` and `utility`, which are also null where
a task knows no truth.
"""


class EpisodeLog:
    """A folder of Parquet parts that grows by one part with every `flush_every` episodes."""

    def __init__(self, folder: str | Path, flush_every: int) -> None:
        if flush_every < 1:
            raise UsageError(f"flush_every is {flush_every}; it must be 1 or more")
        self.folder = Path(folder)
        self.flush_every = flush_every
        self._rows: list[dict[str, Any]] = []
        self._episodes = 0
        self._parts = 0
        if any(self.folder.glob("part-*.parquet")):
            raise UsageError(f"the folder {self.folder} already holds recorded episodes; record into another one")

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes the next episode, without its number."""
        self._rows.append({"episode": self._episodes, **row})
        self._episodes += 1
        if len(self._rows) >= self.flush_every:
            self.flush()

    def flush(self) -> None:
        """Writes what has been taken since the last part.

        Raises:
            DiskError: it cannot be written; it is kept, and the next flush tries again.
        """
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
            part = self.folder / f"part-{self._parts:05}.parquet"
            write_atomically(part, lambda temporary: pq.write_table(table, temporary))
            self._rows = []
            self._parts += 1


@dataclass
class _Running:
    """An episode that has not ended yet."""

    environment: int
    seed: int | None
    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    def step(self, action: Any, reward: float) -> None:
        self.tokens.append(int(action["token"] if isinstance(action, Mapping) else action))
        self.rewards.append(float(reward))

    def row(self, info: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """The episode as a row of `SCHEMA`, with what `info` says at its end."""
        # With reward="episode" the steps before the last are paid nothing.
        rewards = info.get("token_rewards")
        return {
            "environment": self.environment,
            "seed": self.seed,
            "prompt": task.prompt_text(self.prompt),
            "response": decode(task.tokenizer, self.tokens),
            "prompt_ids": self.prompt,
            "response_ids": self.tokens,
            "token_rewards": self.rewards if rewards is None else rewards[: len(self.tokens)].tolist(),
            "score": info.get("score"),
            "gold": info.get("gold"),
            "utility": info.get("utility"),
            "end": info.get("end", "truncated"),
        }


class RecordEpisodes(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Writes the episodes of a `TextEnv` to a folder of Parquet files, whose columns `SCHEMA` tells.

    A part is written whole or not at all, after every `flush_every` episodes and when the environment
    is closed. So a process that is interrupted loses the episodes since the last part, and none where
    the environment is used as in `with textenv.RecordEpisodes(env, folder) as env:`. An episode that
    is given up before its end is not written. `pandas.read_parquet(folder)` reads all parts.

    Args:
        env: a `TextEnv`, in wrappers that leave its observations and actions as they are.
        folder: where to write; it must hold no recording yet.
        flush_every: how many episodes make a part.
    """

    def __init__(self, env: gym.Env[Any, Any], folder: str | Path, flush_every: int = 100) -> None:
        RecordConstructorArgs.__init__(self, folder=folder, flush_every=flush_every)
        gym.Wrapper.__init__(self, env)
        self._task: Task = env.get_wrapper_attr("task")
        self._log = EpisodeLog(folder, flush_every)
        self._seed: int | None = None
        self._running: _Running | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; one that has not ended is given up."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._seed = self._seed if seed is None else seed
        self._running = _Running(0, self._seed, _prompt(observation))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps, and takes down the episode where this ends it."""
        result = self.env.step(action)
        _, reward, terminated, truncated, info = result
        if self._running is not None:
            self._running.step(action, float(reward))
            if terminated or truncated:
                row = self._running.row(info, self._task)
                self._running = None
                self._log.add(row)
        return result

    def flush(self) -> None:
        """Writes the episodes that no part holds yet."""
        self._log.flush()

    def close(self) -> None:
        """Writes the episodes that no part holds yet, and closes the environment."""
        try:
            self._log.flush()
        finally:
            super().close()


class RecordVectorEpisodes(VectorWrapper[Any, Any, Any, Any, Any]):
    """As `RecordEpisodes`, for `TextVectorEnv` and for Gymnasium's vector environments of `TextEnv`.

    All three autoreset modes are understood. It belongs inside of `DictInfoToList`, whose infos it
    does not read.

    Args:
        env: the vector environment.
        folder: where to write; it must hold no recording yet.
        flush_every: how many episodes make a part.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], folder: str | Path, flush_every: int = 100) -> None:
        super().__init__(env)
        inner: Any = env.unwrapped
        # Gymnasium's own vector environments ask the environments that they hold.
        self._task: Task = inner.task if hasattr(inner, "task") else inner.get_attr("task")[0]
        self._log = EpisodeLog(folder, flush_every)
        self._mode = AutoresetMode(env.metadata["autoreset_mode"])
        self._seeds: list[int | None] = [None] * env.num_envs
        self._running: dict[int, _Running] = {}

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins episodes, in all environments or in those of `options["reset_mask"]`; unfinished ones are given up."""
        mask = (options or {}).get("reset_mask")  # Before Gymnasium's environments take it out.
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        rows = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        if seed is not None:
            seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
            for row in rows:
                given = seeds[row]
                self._seeds[row] = self._seeds[row] if given is None else int(given)
        self._begin(rows, observations)
        return observations, infos

    def step(
        self, actions: Any
    ) -> tuple[Any, npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Steps, and takes down the episodes that this ends."""
        resting = set(range(self.num_envs)) - self._running.keys()
        result = self.env.step(actions)
        observations, rewards, terminated, truncated, infos = result
        for row, running in self._running.items():
            action = {key: value[row] for key, value in actions.items()} if isinstance(actions, dict) else actions[row]
            running.step(action, rewards[row])
        ended = np.flatnonzero(terminated | truncated).tolist()
        same_step = self._mode == AutoresetMode.SAME_STEP
        taken_down = list(self._taken_down(ended, infos["final_info"] if same_step and ended else infos))
        if same_step:
            self._begin(ended, observations)
        elif self._mode == AutoresetMode.NEXT_STEP:
            self._begin(resting, observations)
        for episode in taken_down:
            self._log.add(episode)
        return result

    def flush(self) -> None:
        """Writes the episodes that no part holds yet."""
        self._log.flush()

    def close(self, **kwargs: Any) -> None:
        """Writes the episodes that no part holds yet, and closes the environments."""
        try:
            self._log.flush()
        finally:
            super().close(**kwargs)

    def _begin(self, rows: Any, observations: Mapping[str, npt.NDArray[Any]]) -> None:
        for row in rows:
            prompt = _prompt({name: batch[row] for name, batch in observations.items()})
            self._running[row] = _Running(row, self._seeds[row], prompt)

    def _taken_down(self, ended: Sequence[int], infos: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for row in ended:
            info = {name: infos[name][row] for name in infos if name in _INFOS and infos[f"_{name}"][row]}
            yield self._running.pop(row).row(info, self._task)


_INFOS = ("token_rewards", "score", "gold", "utility", "end")
"""What is read of an episode's last info."""


def _prompt(observation: Mapping[str, npt.NDArray[Any]]) -> list[int]:
    """The token ids of the prompt, in the observation that an episode begins with."""
    ids: list[int] = observation["input_ids"][observation["attention_mask"].astype(np.bool_)].tolist()
    return ids
