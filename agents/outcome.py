"""What a run came to: the policy against the reference and against the best that could be reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from agents.seeds import Seeds
from textenv.enumeration import all_logprobs, all_rewards, objective_of, total_variation
from textenv.errors import UsageError
from textenv.evaluation import Evaluation, HasLanguageModel, logprobs_under
from textenv.language_model import LanguageModel
from textenv.optimum import ImportanceSamples, KnowsOptimum, Objective, mixture_samples, share_of_optimum
from textenv.responses import Responses
from textenv.rewards import GoldReward
from textenv.tasks.base import RewardFunction, Task
from textenv.token_texts import decode, shown_tokens

Scores = Callable[[Evaluation], Tensor]
"""The scores (B,) of an evaluation's responses that an objective is about."""


@runtime_checkable
class KnowsResponses(Protocol):
    """A policy that is no language model, but tells how likely each response is where all of them can be listed."""

    def response_logprobs(self, task: Task) -> Float[Tensor, "N R"]:
        """Log-probability of every response, in the order of `textenv.enumeration`.

        Raises:
            UsageError: the task cannot be enumerated.
        """
        ...


@dataclass(frozen=True)
class ReferencePolicy:
    """The reference as a policy to be evaluated."""

    language_model: LanguageModel


@dataclass(frozen=True)
class Judge:
    """Judges a policy by a task's truth and by a reward, both at the task's evaluation β."""

    task: Task
    reference: LanguageModel
    reward: RewardFunction
    seeds: Seeds
    """Give the bootstrap over prompts its noise."""

    def results(self, agent: Any, before: Evaluation, after: Evaluation) -> dict[str, float | None]:
        """The numbers of a summary; those of the truth are None where no truth is known.

        Of a policy that does not tell its distribution neither KL nor objective can be known, but by enumeration.

        Args:
            agent: the policy, for tasks that can be enumerated.
            before: of the reference.
            after: of the policy, on the same prompts.
        """
        numbers: dict[str, float | None] = {
            "gold_before": None,
            "gold_after": None,
            "gold_best_of_n": None,
            "utility_before": None,
            "utility_after": None,
            "total_variation": None,
            "reward_before": float(before.reward.mean()),
            "reward_after": float(after.reward.mean()),
            "kl": float(after.kl.mean()),
            "response_length_before": float(before.responses.lengths.float().mean()),
            "response_length_after": float(after.responses.lengths.float().mean()),
            "samples_per_prompt": after.responses.group_size,
            "evaluation_beta": self.task.beta,
        }
        listed = self._enumerated(agent)
        unknown = bool(after.kl.isnan().any())
        if unknown and listed is not None:
            numbers["kl"] = float(objective_of(*listed, torch.zeros_like(listed[0]), self.task.beta).kl)

        def objective(scores: Scores, reward: RewardFunction) -> Objective | None:
            if listed is not None:
                return self._exactly(listed, reward)
            if unknown:
                return None
            samples = self._shipped_samples(reward, len(before.responses.prompts))
            if samples is None:
                on_reference = logprobs_under(agent, before.responses, self.task, self.reference)
                samples = mixture_samples(after, before, on_reference, scores)
            return share_of_optimum(after, before, samples, scores, self.task.beta, self.seeds.numpy("bootstrap"))

        truth = None
        if before.gold is not None and after.gold is not None:
            groups = before.gold.score.view(-1, before.responses.group_size)
            numbers |= {
                "gold_before": float(before.gold.score.mean()),
                "gold_after": float(after.gold.score.mean()),
                "gold_best_of_n": float(groups.amax(dim=1).mean()),
                "utility_before": float(before.gold.utility.mean()),
                "utility_after": float(after.gold.utility.mean()),
            }
            truth = objective(_true_utility, GoldReward(self.task))
            if listed is not None:
                numbers["total_variation"] = self._distance(*listed)
        paid = objective(lambda evaluation: evaluation.reward, self.reward)
        return numbers | _named(truth, "") | _named(paid, "reward_")

    def _enumerated(self, agent: Any) -> tuple[Tensor, Tensor] | None:
        """Log-probabilities of every response under policy and reference; None where they cannot be listed."""
        try:
            if isinstance(agent, HasLanguageModel):
                policy = all_logprobs(self.task, agent.language_model).double()
            elif isinstance(agent, KnowsResponses):
                policy = agent.response_logprobs(self.task)
            else:
                return None
            return policy, all_logprobs(self.task, self.reference).double()
        except UsageError:
            return None

    def _shipped_samples(self, reward: RewardFunction, prompts: int) -> ImportanceSamples | None:
        """What a task ships to tell its J* from, which holds for its true utility and its own reference only."""
        own = self.reference.name == self.task.reference and isinstance(reward, GoldReward)
        return self.task.importance_samples(prompts) if own and isinstance(self.task, KnowsOptimum) else None

    def _exactly(self, listed: tuple[Tensor, Tensor], reward: RewardFunction) -> Objective:
        """J, J_ref, J* = E_x[β log Σ_y π_ref exp(r/β)] and the share, without error."""
        beta, (policy, reference) = self.task.beta, listed
        rewards = all_rewards(self.task, reward, self.reference)
        optimum = float((beta * torch.logsumexp(reference + rewards / beta, dim=1)).mean())
        start = float(objective_of(reference, reference, rewards, beta).objective)
        reached = float(objective_of(policy, reference, rewards, beta).objective)
        share = (reached - start) / (optimum - start) if optimum > start else None
        return Objective(reached, start, optimum, 0.0, share, share, share, math.inf)

    def _distance(self, policy: Tensor, reference: Tensor) -> float:
        """The total variation distance to π* ∝ π_ref exp(u/β) for the true utility u, a mean over prompts."""
        rewards = all_rewards(self.task, GoldReward(self.task), self.reference)
        best = torch.log_softmax(reference + rewards / self.task.beta, dim=1)
        return float(total_variation(policy, best).mean())


def sample_rows(task: Task, before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """One row a test prompt: its first answer before and after, with what each token earned after."""
    first = torch.arange(len(after.responses.prompts)) * after.responses.group_size
    # Where the policy does not tell its log-probabilities, only the scores are left to show.
    token_rewards = (-task.beta * (after.logprobs - after.reference_logprobs)).nan_to_num(nan=0.0)
    rows = []
    for place, prompt in enumerate(after.responses.prompts.to_lists()):
        row = int(first[place])
        ids, old_ids = _row(after.responses, row), _row(before.responses, row)
        earned = token_rewards[row, : len(ids)].double()
        earned[-1] += float(after.reward[row])
        rows.append(
            {
                "prompt": task.prompt_text(prompt),
                "before": decode(task.tokenizer, old_ids),
                "after": decode(task.tokenizer, ids),
                "gold_before": None if before.gold is None else float(before.gold.score[row]),
                "gold_after": None if after.gold is None else float(after.gold.score[row]),
                "reward_before": float(before.reward[row]),
                "reward_after": float(after.reward[row]),
                "tokens_after": shown_tokens(task.tokenizer, ids),
                "token_rewards_after": earned.tolist(),
            }
        )
    return rows


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None, which JSON can say, for what is not a finite number."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in numbers.items()
    }


def _row(responses: Responses, row: int) -> list[int]:
    ids: list[int] = responses.ids[row][responses.mask[row]].tolist()
    return ids


def _true_utility(evaluation: Evaluation) -> Tensor:
    assert evaluation.gold is not None
    return evaluation.gold.utility


def _named(objective: Objective | None, prefix: str) -> dict[str, float | None]:
    """The parts of an objective under the names of the summary."""
    names = {
        f"{prefix}objective": "objective",
        f"{prefix}objective_reference": "objective_reference",
        f"{prefix}objective_optimum": "optimum",
        f"{prefix}optimum_stderr": "optimum_stderr",
        f"{prefix}share": "share",
        f"{prefix}share_low": "share_low",
        f"{prefix}share_high": "share_high",
        f"{prefix}effective_sample_size": "effective_sample_size",
    }
    return {name: None if objective is None else getattr(objective, part) for name, part in names.items()}
