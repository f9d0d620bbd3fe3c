"""Episodes of text generation, N side by side: what the single and the vector environment share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.utils import output_capturing

from textenv import models, tasks
from textenv.actions import KL, check_response_logprobs, check_responses
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.rewards import GoldReward, score_responses
from textenv.stepwise import Rows, StepwiseLogprobs
from textenv.tasks.base import Gold, RewardFunction, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Granularity = Literal["token", "episode"]
Observation = dict[str, npt.NDArray[Any]]
Infos = dict[str, npt.NDArray[Any]]
Numbers = TypeVar("Numbers", Tensor, npt.NDArray[np.float64])

# A forked process has none of its parent's threads, and torch's OpenMP would wait for them forever.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


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
    """What one token each brought to n episodes, of which m have ended."""

    rewards: npt.NDArray[np.float64]
    ended: npt.NDArray[np.bool_]
    infos: Infos
    """Of those that have ended, in their order: each array has m rows. Empty where none has."""


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
        self.ids = np.full((count, columns), self.pad_id)
        self.mask = np.zeros((count, columns), dtype=np.bool_)
        self.steps = np.zeros(count, dtype=np.int64)
        self.alive = np.zeros(count, dtype=np.bool_)
        self.logprobs = np.zeros((count, self.response_length), dtype=np.float32)
        self.reference_logprobs = np.zeros((count, self.response_length), dtype=np.float32)
        self.token_rewards = np.zeros((count, self.response_length))

    def __getstate__(self) -> dict[str, Any]:
        _forget_hooks(self.reference.model)
        return vars(self)

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
        """Starts new episodes in some rows, whatever state these were in.

        Raises:
            UsageError: the task gave a prompt without tokens, or a longer one than it says; nothing is started.
        """
        lengths = np.array([len(prompt) for prompt in prompts])
        wrong = (lengths < 1) | (lengths > self.prompt_length)
        if wrong.any():
            index = int(wrong.argmax())
            raise UsageError(
                f"{self._described(int(rows[index]), prompts[index])}: the task {self.task.name!r} gave a prompt of "
                f"{lengths[index]} tokens; expected are 1 to {self.prompt_length}"
            )
        columns = np.arange(self.ids.shape[1])
        mask = (columns >= self.prompt_length - lengths[:, None]) & (columns < self.prompt_length)
        ids = np.full(mask.shape, self.pad_id)
        ids[mask] = np.fromiter(itertools.chain.from_iterable(prompts), np.int64)
        self.ids[rows], self.mask[rows] = ids, mask
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

        Raises:
            TextenvError: the reward function failed; the episodes are as if nothing had been appended.
        """
        steps = self.steps[rows]
        ended = (tokens == self.eos_id) | (steps + 1 == self.response_length)
        if self.granularity == "token":
            next_logprobs = self._next_logprobs(rows, torch.from_numpy(self.ids), torch.from_numpy(self.mask), steps)
            self.reference_logprobs[rows, steps] = next_logprobs.gather(1, torch.from_numpy(tokens)[:, None])[:, 0]
        if logprobs is not None:
            self.logprobs[rows, steps] = logprobs
        self.ids[rows, self.prompt_length + steps] = tokens
        self.mask[rows, self.prompt_length + steps] = True
        self.steps[rows] = steps + 1
        infos: Infos = {}
        if ended.any():
            try:
                infos = self._settle(rows[ended], tokens[ended] == self.eos_id)
            except BaseException:  # An interruption leaves no half of a step either.
                self._take_back(rows, steps)
                raise
        self.alive[rows] = ~ended
        if self.granularity == "token":
            going_on, columns = rows[~ended], steps[~ended]
            self.token_rewards[going_on, columns] = self._kl_term(
                self.logprobs[going_on, columns].astype(np.float64),
                self.reference_logprobs[going_on, columns].astype(np.float64),
            )
            return Advance(self.token_rewards[rows, steps], ended, infos)
        rewards = np.zeros(len(rows))
        rewards[ended] = self.token_rewards[rows[ended]].sum(axis=1)
        return Advance(rewards, ended, infos)

    def responses(self, rows: Rows) -> Responses:
        """What was generated in some rows so far, each with its prompt."""
        start, width = self.prompt_length, max(1, int(self.steps[rows].max()))
        ids, mask = (torch.from_numpy(each[rows, : start + width]) for each in (self.ids, self.mask))
        return Responses(Prompts(ids[:, :start], mask[:, :start]), ids[:, start:], mask[:, start:])

    def observation(self, rows: Rows | None = None) -> Observation:
        """Prompts and tokens so far of some rows, by default of all, in arrays of their own."""
        ids, mask = (self.ids.copy(), self.mask.copy()) if rows is None else (self.ids[rows], self.mask[rows])
        return {"attention_mask": mask.view(np.int8), "input_ids": ids}

    def describe(self, row: int) -> str:
        """An episode as messages call it: its environment and its prompt."""
        ids = self.ids[row, : self.prompt_length][self.mask[row, : self.prompt_length]]
        return self._described(row, ids.tolist())

    def score(self, responses: Responses, logprobs: Float[Tensor, "B T"]) -> Scores:
        """Pays whole responses at once: the same numbers as stepping through them.

        Args:
            responses: B = N·k of them; errors call row i environment i.
            logprobs: log-probability of each token under the policy; not read with kl="reference".

        Raises:
            UsageError: the responses or the log-probabilities could not have come from stepping.
            TextenvError: the reward function failed.
        """

        def describe(row: int) -> str:
            return self._described(row, responses.prompts.to_lists()[row // responses.group_size])

        check_responses(responses, self.reference.vocab_size, self.response_length, describe)
        if self.kl == "full":
            check_response_logprobs(logprobs, responses, describe)
        return self._score(responses, logprobs, self.reference.logprobs(responses), describe)

    def _settle(self, rows: Rows, by_eos: npt.NDArray[np.bool_]) -> Infos:
        """Pays the scores of episodes that have just ended, and says in their infos what happened."""
        responses = self.responses(rows)
        width = responses.ids.shape[1]
        if self.granularity == "token":
            reference_logprobs = torch.from_numpy(self.reference_logprobs[rows, :width])
        else:
            reference_logprobs = self.reference.logprobs(responses)
        logprobs = torch.from_numpy(self.logprobs[rows, :width])
        scores = self._score(
            responses, logprobs.double(), reference_logprobs.double(), lambda index: self.describe(int(rows[index]))
        )
        end = np.where(by_eos, "eos", "length").astype(object)
        infos: Infos = {"end": end, "score": scores.score.double().numpy()}
        if scores.gold is not None:
            infos["gold"] = scores.gold.score.double().numpy()
            infos["utility"] = scores.gold.utility.double().numpy()
        self.reference_logprobs[rows, :width] = reference_logprobs
        self.token_rewards[rows, :width] = scores.token_rewards
        if self.granularity == "episode":
            infos["token_rewards"] = self.token_rewards[rows]
        return infos

    def _take_back(self, rows: Rows, steps: Rows) -> None:
        """Removes the tokens that were appended last, at these steps."""
        self.ids[rows, self.prompt_length + steps] = self.pad_id
        self.mask[rows, self.prompt_length + steps] = False
        self.steps[rows] = steps
        for record in (self.logprobs, self.reference_logprobs):
            record[rows, steps] = 0.0

    def _score(
        self, responses: Responses, logprobs: Tensor, reference_logprobs: Tensor, describe: Callable[[int], str]
    ) -> Scores:
        score = score_responses(self.reward_function, responses, describe)
        if self.missing_eos_penalty:
            score = score - self.missing_eos_penalty * (~responses.ended(self.eos_id))
        gold = self.task.gold(responses)
        token_rewards = self._kl_term(logprobs, reference_logprobs) * responses.mask
        last = responses.lengths[:, None] - 1
        token_rewards.scatter_add_(1, last, score[:, None].to(token_rewards.dtype))
        return Scores(score, reference_logprobs, token_rewards, gold)

    def _described(self, row: int, prompt: Sequence[int]) -> str:
        return f"environment {row}, prompt {self.task.prompt_text(prompt)!r}"

    def _kl_term(self, logprobs: Numbers, reference_logprobs: Numbers) -> Numbers:
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


def _forget_hooks(model: PreTrainedModel) -> None:
    """Removes the hooks by which transformers catches hidden states: functions that cannot be pickled.

    It installs them anew where they are asked for.
    """
    from transformers import PreTrainedModel  # Only here, where one has been loaded: it takes seconds.

    for module in model.modules():
        hooks = module._forward_hooks
        for key in [key for key, hook in hooks.items() if hook.__module__ == output_capturing.__name__]:
            del hooks[key]
        if isinstance(module, PreTrainedModel):
            vars(module).pop("_output_capturing_hooks_installed", None)
