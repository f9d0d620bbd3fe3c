"""Walking through episodes of an environment token by token, as a policy chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from textenv.decoding import next_token_logprobs
from textenv.env import TextEnv
from textenv.episodes import Observation
from textenv.language_model import LanguageModel
from textenv.tasks.base import RewardFunction, Split, Task

Policy: TypeAlias = "Callable[[Observation], Tensor]"
"""Log-probabilities (V,) of the next token, from the observation of one environment."""


class Step(NamedTuple):
    """One token of an episode."""

    token: int
    logprob: float
    """Its log π, under the policy that chose it."""
    reference_logprob: float
    """Its log π_ref."""
    reward: float
    """−β(log π − log π_ref), and the score at the last one."""
    info: dict[str, Any]
    """The environment's; at the last step with `end`, `score` and, where it is known, `gold`."""


class Walker:
    """A `TextEnv` with kl="full" that asks the prompts it is told to."""

    def __init__(self, task: Task, reference: LanguageModel, reward: RewardFunction, beta: float) -> None:
        self._asked = _OnePrompt(task)
        self.env = TextEnv(
            cast(Task, self._asked),
            reward_function=reward,
            reference=reference,
            beta=beta,
            kl="full",
            render_mode="ansi",
        )

    def walk(self, prompt: Sequence[int], policy: Policy, rng: np.random.Generator) -> Iterator[Step]:
        """Steps from a prompt to the end of its episode; `env.render()` shows how far it has come.

        Args:
            prompt: token ids.
            policy: gives the probabilities of the next token.
            rng: draws one number a step, so that equal policies with equal generators take equal tokens.
        """
        self._asked.prompt = prompt
        observation, _ = self.env.reset()
        ended = False
        while not ended:
            logprobs = policy(observation)
            cumulative = logprobs.double().exp().cumsum(dim=0)
            place = torch.searchsorted(cumulative, cumulative[-1] * rng.random(), right=True)
            token = min(int(place), len(logprobs) - 1)
            logprob = float(logprobs[token])
            action = {"token": token, "logprob": np.float32(logprob)}
            observation, reward, ended, _, info = self.env.step(action)
            column = int(self.env.episodes.steps[0]) - 1
            yield Step(token, logprob, float(self.env.episodes.reference_logprobs[0, column]), reward, info)


def uniform(vocab_size: int) -> Policy:
    """Takes every token with the same probability."""
    return lambda observation: torch.full((vocab_size,), 1 / vocab_size).log()


def of_model(language_model: LanguageModel) -> Policy:
    """Takes tokens as a language model does."""

    def policy(observation: Observation) -> Float[Tensor, " V"]:
        ids, mask = (torch.from_numpy(observation[name])[None] for name in ("input_ids", "attention_mask"))
        return next_token_logprobs(language_model.model, ids, mask.bool())[0]

    return policy


class _OnePrompt:
    """A task that asks one prompt, in all else as another one."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.prompt: Sequence[int] = ()

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """The prompt, `count` times."""
        return [list(self.prompt) for _ in range(count)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)
