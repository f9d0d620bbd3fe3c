"""Episodes of text generation, N side by side: what the single and the vector environment share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from textenv import models, tasks
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.rewards import GoldReward, score_responses
from textenv.stepwise import Rows, StepwiseLogprobs
from textenv.tasks.base import Gold, RewardFunction, Task, prompts_of

KL = Literal["full", "reference"]
Granularity = Literal["token", "episode"]
Observation = dict[str, npt.NDArray[Any]]

LOWEST_LOGPROB = -1e4
"""No sampled token is less likely; a finite bound, since Gymnasium warns of infinite ones."""


class Scores(NamedTuple):
    """What B whole responses are paid."""

    score: Float[Tensor, " B"]
    """The reward function's value, less the penalty where no end-of-sequence token came."""
    reference_logprobs: Float[Tensor, "B T"]
    """log π_ref of each token, 0 where masked."""
    token_rewards: Float[Tensor, "B T"]
    """The KL term of each token, with the score added at the last one; 0 where masked."""
    gold: Gold | None
    """The true judgement, where the task knows one."""


class Advance(NamedTuple):
    """What one token each brought to n episodes."""

    rewards: npt.NDArray[np.float64]
    ended: npt.NDArray[np.bool_]
    infos: list[dict[str, Any]]


class EpisodeAttributes:
    """What an environment shows of its `episodes`; all but β is fixed once it is made."""

    episodes: Episodes

    @property
    def task(self) -> Task:
        """Where the prompts and the truth come from."""
        return self.episodes.task

    @property
    def reference(self) -> LanguageModel:
        """π_ref of the KL term."""
        return self.episodes.reference

    @property
    def reward_function(self) -> RewardFunction:
        """What scores whole responses."""
        return self.episodes.reward_function

    @property
    def kl(self) -> KL:
        """Which of the two KL terms is paid."""
        return self.episodes.kl

    @property
    def beta(self) -> float:
        """β, the weight of the KL term; it can be set between episodes."""
        return self.episodes.beta

    @beta.setter
    def beta(self, value: float) -> None:
        self.episodes.beta = value

    @property
    def pad_id(self) -> int:
        """The token that fills unused columns."""
        return self.episodes.pad_id

    @property
    def eos_id(self) -> int:
        """The token that ends a response."""
        return self.episodes.eos_id


class Episodes:
    """N independent episodes of one task and what pays them; knows nothing of resets or seeds."""

    def __init__(
        self,
        task: str | Task,
        count: int,
        *,
        reward_function: RewardFunction | None,
        reference: LanguageModel | None,
        beta: float | None,
        kl: KL,
        reward: Granularity,
        missing_eos_penalty: float,
    ) -> None:
        if kl not in ("full", "reference"):
            raise UsageError(f"kl is {kl!r}; it must be 'full' or 'reference'")
        if reward not in ("token", "episode"):
            raise UsageError(
                f"reward is {reward!r}; it must be 'token' or 'episode' (for what is paid: reward_function)"
            )
        if not 0.0 <= missing_eos_penalty < np.inf:
            raise UsageError(f"missing_eos_penalty is {missing_eos_penalty}; it must be a finite number, 0 or more")
        self.task: Task = tasks.load(task) if isinstance(task, str) else task
        self.reference = models.load(self.task.reference) if reference is None else reference
        self.reward_function = GoldReward(self.task) if reward_function is None else reward_function
        self.beta = self.task.beta if beta is None else beta
        self.kl = kl
        self.granularity = reward
        self.missing_eos_penalty = float(missing_eos_penalty)
        self.pad_id, self.eos_id = self.reference.pad_id, self.reference.eos_id
        self.prompt_length, self.response_length = self.task.prompt_length, self.task.response_length
        self._check_reference()
        self._next_logprobs = StepwiseLogprobs(self.reference.model, count, self.prompt_length)
        columns = self.prompt_length + self.response_length
        self.ids = torch.full((count, columns), self.pad_id)
        self.mask = torch.zeros((count, columns), dtype=torch.bool)
        self.steps = np.zeros(count, dtype=np.int64)
        self.alive = np.zeros(count, dtype=np.bool_)
        self.logprobs = torch.zeros((count, self.response_length))
        self.reference_logprobs = torch.zeros((count, self.response_length))
        self.token_rewards = torch.zeros((count, self.response_length), dtype=torch.float64)

    @property
    def beta(self) -> float:
        """β, the weight of the KL term."""
        return self._beta

    @beta.setter
    def beta(self, value: float) -> None:
        if not 0.0 <= value < np.inf:
            raise UsageError(f"beta is {value}; it must be a finite number, 0 or more")
        self._beta = float(value)

    def begin(self, rows: Rows, prompts: Sequence[Sequence[int]]) -> None:
        """Starts new episodes in some rows, whatever state these were in."""
        batch = prompts_of(self.task, prompts)
        self.ids[rows] = self.pad_id
        self.mask[rows] = False
        self.ids[rows, : self.prompt_length] = batch.ids
        self.mask[rows, : self.prompt_length] = batch.mask
        self.steps[rows] = 0
        self.alive[rows] = True
        for record in (self.logprobs, self.reference_logprobs, self.token_rewards):
            record[rows] = 0.0

    def advance(self, rows: Rows, tokens: Rows, logprobs: npt.NDArray[np.float32] | None) -> Advance:
        """Appends one token to each of n running episodes, and pays for it.

        Args:
            rows: which episodes, each once.
            tokens: the token chosen in each.
            logprobs: its log-probability under the policy; None with kl="reference".
        """
        steps = self.steps[rows]
        chosen = torch.from_numpy(tokens)
        if self.granularity == "token":
            reference = self._next_logprobs(rows, self.ids, self.mask, steps)
            self.reference_logprobs[rows, steps] = reference.gather(1, chosen[:, None])[:, 0]
        if logprobs is not None:
            self.logprobs[rows, steps] = torch.from_numpy(logprobs)
        self.ids[rows, self.prompt_length + steps] = chosen
        self.mask[rows, self.prompt_length + steps] = True
        self.steps[rows] += 1
        ended = (tokens == self.eos_id) | (self.steps[rows] == self.response_length)
        self.alive[rows] = ~ended
        if self.granularity == "token":
            self.token_rewards[rows, steps] = self._kl_term(
                self.logprobs[rows, steps].double(), self.reference_logprobs[rows, steps].double()
            )
        infos: list[dict[str, Any]] = [{} for _ in rows]
        if ended.any():
            for index, info in zip(np.flatnonzero(ended), self._settle(rows[ended]), strict=True):
                infos[index] = info
        if self.granularity == "token":
            rewards = self.token_rewards[rows, steps].numpy()
        else:
            rewards = np.where(ended, self.token_rewards[rows].sum(dim=1).numpy(), 0.0)
        return Advance(rewards, ended, infos)

    def responses(self, rows: Rows) -> Responses:
        """What was generated in some rows so far, each with its prompt."""
        prompts = Prompts(self.ids[rows, : self.prompt_length], self.mask[rows, : self.prompt_length])
        width = max(1, int(self.steps[rows].max()))
        columns = slice(self.prompt_length, self.prompt_length + width)
        return Responses(prompts, self.ids[rows, columns], self.mask[rows, columns])

    def observation(self, rows: Rows) -> Observation:
        """Prompts and tokens so far of some rows, in arrays of their own."""
        return {
            "attention_mask": self.mask[rows].numpy().astype(np.int8),
            "input_ids": self.ids[rows].numpy().copy(),
        }

    def score(self, responses: Responses, logprobs: Float[Tensor, "B T"], rows: Rows | None = None) -> Scores:
        """Pays whole responses at once: the same numbers as stepping through them.

        Args:
            responses: B = N·k of them.
            logprobs: log-probability of each token under the policy; not read with kl="reference".
            rows: the environments that errors name; row i is environment i where this is left out.
        """
        if logprobs.shape != responses.ids.shape:
            raise UsageError(
                f"logprobs have shape {tuple(logprobs.shape)}; the responses, {tuple(responses.ids.shape)}"
            )
        return self._score(responses, logprobs, self.reference.logprobs(responses), rows)

    def _settle(self, rows: Rows) -> list[dict[str, Any]]:
        """Pays the scores of episodes that have just ended, and says in their infos what happened."""
        responses = self.responses(rows)
        width = responses.ids.shape[1]
        logprobs = self.logprobs[rows, :width].double()
        if self.granularity == "token":
            scores = self._score(responses, logprobs, self.reference_logprobs[rows, :width].double(), rows)
        else:
            scores = self.score(responses, logprobs, rows)
            self.reference_logprobs[rows, :width] = scores.reference_logprobs
        self.token_rewards[rows, :width] = scores.token_rewards.double()
        with_eos = responses.ended(self.eos_id).tolist()
        infos: list[dict[str, Any]] = []
        for index, row in enumerate(rows):
            info: dict[str, Any] = {"end": "eos" if with_eos[index] else "length", "score": float(scores.score[index])}
            if scores.gold is not None:
                info["gold"] = float(scores.gold.score[index])
                info["utility"] = float(scores.gold.utility[index])
            if self.granularity == "episode":
                info["token_rewards"] = self.token_rewards[row].numpy().copy()
            infos.append(info)
        return infos

    def _score(self, responses: Responses, logprobs: Tensor, reference_logprobs: Tensor, rows: Rows | None) -> Scores:
        def describe(index: int) -> str:
            prompt = self.task.prompt_text(responses.prompts.to_lists()[index // responses.group_size])
            return f"environment {index if rows is None else rows[index]}, prompt {prompt!r}"

        score = score_responses(self.reward_function, responses, describe)
        score = score - self.missing_eos_penalty * (~responses.ended(self.eos_id))
        token_rewards = self._kl_term(logprobs, reference_logprobs) * responses.mask
        last = responses.lengths - 1
        token_rewards[torch.arange(len(last)), last] += score
        return Scores(score, reference_logprobs, token_rewards, self.task.gold(responses))

    def _kl_term(self, logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
        if self.kl == "reference":
            return self.beta * reference_logprobs
        return -self.beta * (logprobs - reference_logprobs)

    def _check_reference(self) -> None:
        if self.task.tokenizer.eos_token_id != self.eos_id or len(self.task.tokenizer) > self.reference.vocab_size:
            raise UsageError(
                f"the reference {self.reference.name!r} does not read the tokens of the task {self.task.name!r}: "
                "their tokenizers differ; take a reference with the task's tokenizer"
            )
        needed = self.prompt_length + self.response_length
        if needed > self.reference.max_length:
            raise UsageError(
                f"prompts of {self.prompt_length} and responses of {self.response_length} tokens need {needed} "
                f"positions; the reference {self.reference.name!r} has {self.reference.max_length}"
            )
