"""Judging a policy on fixed prompts: its own samples, the exact KL at the states they visit, its scores."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from textenv import decoding
from textenv.kl import full_kl
from textenv.language_model import LanguageModel
from textenv.progress import Progress
from textenv.responses import Prompts, Responses
from textenv.rewards import score_responses
from textenv.tasks.base import Gold, RewardFunction, Task


@runtime_checkable
class HasLanguageModel(Protocol):
    """A policy that is a language model, so that it can be decoded with a KV cache."""

    @property
    def language_model(self) -> LanguageModel:
        """The model whose tokens are the policy's actions."""
        ...


@runtime_checkable
class HasLogprobs(Protocol):
    """A policy that tells its distribution over the next token."""

    def logprobs(self, observation: dict[str, npt.NDArray[Any]]) -> Any:
        """Log-probabilities (N, V) of the next token in N observations of the environment."""
        ...


class Predicts(Protocol):
    """A policy that tells nothing but the tokens that it chooses."""

    def predict(self, observation: dict[str, npt.NDArray[Any]]) -> tuple[Any, None]:
        """The next token in N observations, as `{"token": (N,), ...}`, and no recurrent state."""
        ...


Policy = HasLanguageModel | HasLogprobs | Predicts


class Evaluation(NamedTuple):
    """One policy on N fixed prompts with k samples each; B = N·k."""

    responses: Responses
    logprobs: Float[Tensor, "B T"]
    """Under the policy, 0 where masked; NaN for a policy that does not tell."""
    reference_logprobs: Float[Tensor, "B T"]
    """Under π_ref, 0 where masked."""
    kl: Float[Tensor, " B"]
    """KL(π‖π_ref), the full-vocabulary sum over the visited states, in nats an episode; NaN likewise."""
    reward: Float[Tensor, " B"]
    """The reward function's score."""
    gold: Gold | None
    """The true judgement, where the task knows one."""


def evaluate(
    agent: Policy,
    task: Task,
    reference: LanguageModel,
    reward_function: RewardFunction,
    *,
    prompts: Prompts,
    samples_per_prompt: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Evaluation:
    """Samples from the agent's own distribution and scores what comes out.

    Nothing that an agent reports of itself is used but the distribution that it is sampled from. Each
    part of the prompts has noise of its own, so that policies stay paired whatever the lengths of their
    responses to earlier prompts.

    Args:
        agent: has `language_model`, or else `logprobs(observation) -> (N, V)`, or at least `predict`, whose noise is
            its own and whose logprobs are not looked at.
        task: where the budget of tokens and the truth come from.
        reference: π_ref of the KL.
        reward_function: what scores the responses.
        prompts: N of them.
        samples_per_prompt: k.
        generator: the evaluation's noise; equal generators pair two agents' samples.
        progress: told the prompts done, all prompts, and the mean reward so far.

    Raises:
        TextenvError: the reward function failed; the message names the prompt.
    """
    parts: list[Evaluation] = []
    chunks = torch.arange(len(prompts)).split(
        decoding.prompts_at_once(reference.model, samples_per_prompt, task.response_length)
    )
    seeds = torch.randint(2**62, (len(chunks),), generator=generator).tolist()
    for index, seed in zip(chunks, seeds, strict=True):
        chunk, noise = prompts[index], torch.Generator().manual_seed(seed)
        if isinstance(agent, HasLanguageModel):
            part = _with_cache(agent.language_model, task, reference, chunk, samples_per_prompt, noise)
        elif isinstance(agent, HasLogprobs):
            part = _step_by_step(agent, task, reference, chunk, samples_per_prompt, noise)
        else:
            part = _by_its_choices(agent, task, reference, chunk, samples_per_prompt)
        responses, logprobs, reference_logprobs, kl = part

        def describe(row: int, chunk: Prompts = chunk) -> str:
            return f"prompt {task.prompt_text(chunk.to_lists()[row // samples_per_prompt])!r}"

        reward = score_responses(reward_function, responses, describe)
        parts.append(Evaluation(responses, logprobs, reference_logprobs, kl, reward, task.gold(responses)))
        if progress is not None:
            mean = float(torch.cat([each.reward for each in parts]).mean())
            progress(int(index[-1]) + 1, len(prompts), {"reward": mean})
    return _joined(prompts, parts)


@torch.no_grad()
def logprobs_under(
    agent: HasLanguageModel | HasLogprobs, responses: Responses, task: Task, reference: LanguageModel
) -> Float[Tensor, "B T"]:
    """Log-probability of given response tokens under a policy, 0 where masked."""
    if isinstance(agent, HasLanguageModel):
        return agent.language_model.logprobs(responses)
    return _replay(agent, task, reference, responses)


_Part = tuple[Responses, Tensor, Tensor, Tensor]


@torch.no_grad()
def _with_cache(
    policy: LanguageModel, task: Task, reference: LanguageModel, prompts: Prompts, k: int, generator: torch.Generator
) -> _Part:
    responses = policy.sample(prompts, group_size=k, max_tokens=task.response_length, generator=generator).responses
    logits = decoding.drawn_logits(policy.model, responses, policy.sampling)
    itself = policy is reference
    reference_logits = logits if itself else decoding.predictions(reference.model, responses).logits
    ids, mask = responses.ids[responses.mask], responses.mask
    kl = decoding.spread(full_kl(logits, reference_logits), mask).sum(dim=1)
    logprobs, reference_logprobs = (
        decoding.spread(decoding.token_logprobs(each, ids), mask) for each in (logits, reference_logits)
    )
    return responses, logprobs, reference_logprobs, kl


class _Observations:
    """Rows as the environment shows them, filled token by token."""

    def __init__(self, task: Task, reference: LanguageModel, prompts: Prompts) -> None:
        columns = task.prompt_length + task.response_length
        self.ids = np.full((len(prompts), columns), reference.pad_id, dtype=np.int64)
        self.mask = np.zeros((len(prompts), columns), dtype=np.int8)
        self.start = task.prompt_length
        width = prompts.ids.shape[1]
        self.ids[:, self.start - width : self.start] = prompts.ids.numpy()
        self.mask[:, self.start - width : self.start] = prompts.mask.numpy()

    def append(self, step: int, rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> None:
        self.ids[rows, self.start + step] = tokens
        self.mask[rows, self.start + step] = 1

    def of(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        return {"input_ids": self.ids[rows].copy(), "attention_mask": self.mask[rows].copy()}

    def logprobs(self, agent: HasLogprobs, rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.log_softmax(torch.as_tensor(agent.logprobs(self.of(rows))).double(), dim=-1)

    def responses(self, prompts: Prompts) -> Responses:
        ids, mask = torch.from_numpy(self.ids[:, self.start :]), torch.from_numpy(self.mask[:, self.start :]).bool()
        width = int(mask.sum(dim=1).max())
        return Responses(prompts, ids[:, :width], mask[:, :width])

    def reference_logprobs(self, reference: LanguageModel, rows: npt.NDArray[np.int64], step: int) -> Tensor:
        columns = self.start + step
        ids = torch.from_numpy(self.ids[rows, :columns])
        mask = torch.from_numpy(self.mask[rows, :columns]).bool()
        return decoding.next_token_logprobs(reference.model, ids, mask).double()


def _step_by_step(
    agent: HasLogprobs, task: Task, reference: LanguageModel, prompts: Prompts, k: int, generator: torch.Generator
) -> _Part:
    """The same through `logprobs(observation)` alone, one call a token for all rows that still run."""
    rows = np.arange(len(prompts) * k)
    observations = _Observations(task, reference, prompts.repeat(k))
    shape = (len(rows), task.response_length)
    logprobs, reference_logprobs, kl = torch.zeros(shape), torch.zeros(shape), torch.zeros(len(rows))
    alive = rows
    for step in range(task.response_length):
        policy = observations.logprobs(agent, alive)
        base = observations.reference_logprobs(reference, alive, step)
        uniform = torch.rand(len(rows), generator=generator, dtype=torch.float64)[alive, None]
        cumulative = policy.exp().cumsum(dim=-1)
        tokens = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(max=policy.shape[1] - 1)
        kl[alive] += full_kl(policy, base).float()
        logprobs[alive, step] = policy.gather(1, tokens)[:, 0].float()
        reference_logprobs[alive, step] = base.gather(1, tokens)[:, 0].float()
        observations.append(step, alive, tokens[:, 0].numpy())
        alive = alive[tokens[:, 0].numpy() != reference.eos_id]
        if not len(alive):
            break
    responses = observations.responses(prompts)
    width = responses.ids.shape[1]
    return responses, logprobs[:, :width], reference_logprobs[:, :width], kl


def _by_its_choices(agent: Predicts, task: Task, reference: LanguageModel, prompts: Prompts, k: int) -> _Part:
    """Responses of a policy that does not tell its distribution, so that its KL stays unknown."""
    alive = np.arange(len(prompts) * k)
    observations = _Observations(task, reference, prompts.repeat(k))
    for step in range(task.response_length):
        tokens = np.asarray(agent.predict(observations.of(alive))[0]["token"])
        observations.append(step, alive, tokens)
        alive = alive[tokens != reference.eos_id]
        if not len(alive):
            break
    responses = observations.responses(prompts)
    unknown = torch.full(responses.ids.shape, torch.nan).masked_fill(~responses.mask, 0.0)
    return responses, unknown, reference.logprobs(responses), torch.full((len(responses),), torch.nan)


def _replay(agent: HasLogprobs, task: Task, reference: LanguageModel, responses: Responses) -> Tensor:
    observations = _Observations(task, reference, responses.prompts.repeat(responses.group_size))
    logprobs = torch.zeros(responses.ids.shape)
    for step in range(responses.ids.shape[1]):
        rows = responses.mask[:, step].nonzero()[:, 0].numpy()
        tokens = responses.ids[rows, step]
        logprobs[rows, step] = observations.logprobs(agent, rows).gather(1, tokens[:, None])[:, 0].float()
        observations.append(step, rows, tokens.numpy())
    return logprobs


def _padded(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))


def _joined(prompts: Prompts, parts: list[Evaluation]) -> Evaluation:
    """Parts of consecutive prompts as one evaluation, padded to the longest response."""
    width = max(part.responses.ids.shape[1] for part in parts)

    def joined(values: list[Tensor]) -> Tensor:
        return torch.cat([_padded(value, width) for value in values])

    responses = Responses(
        prompts,
        joined([part.responses.ids for part in parts]),
        joined([part.responses.mask for part in parts]),
    )
    golds = [part.gold for part in parts if part.gold is not None]
    return Evaluation(
        responses,
        joined([part.logprobs for part in parts]),
        joined([part.reference_logprobs for part in parts]),
        torch.cat([part.kl for part in parts]),
        torch.cat([part.reward for part in parts]),
        Gold(*(torch.cat(column) for column in zip(*golds, strict=True))) if golds else None,
    )
