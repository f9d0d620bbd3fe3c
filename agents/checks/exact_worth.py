"""What an agent's policy is worth on Exact-v0, exactly, from nothing but its answers to observations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.base import Observation
from textenv import models, tasks
from textenv.demonstrations import Demonstrations, best_demonstrations
from textenv.enumeration import (
    Objective,
    all_logprobs,
    all_prompts,
    all_responses,
    all_rewards,
    exact_optimum,
    objective_of,
    response_logprobs,
)
from textenv.language_model import LanguageModel
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses
from textenv.rewards import GoldReward
from textenv.tasks.base import Task
from textenv.tasks.exact import EOS, PAD, VOCABULARY

ROWS_AT_ONCE = 2048
DRAWS = 512
"""Responses to each prompt where a policy can only be drawn from."""
PAIRS = 512
"""Comparisons for each prompt, for agents that learn from them."""

DEMONSTRATIONS = 64
"""Demonstrations for each prompt, for agents that learn from them."""


@dataclass(frozen=True)
class ExactWorth:
    """Every state of Exact-v0 as an observation, and what a policy comes to in all of them."""

    task: Task
    reference: LanguageModel

    @cached_property
    def states(self) -> Observation:
        """All S = 4·(1 + 6 + … + 6⁴) of them: shorter responses first, then by prompt, then by prefix."""
        parts = []
        for length, blocks in enumerate(self._prefixes):
            for prompt, prefixes in zip(range(len(self.prompts)), blocks, strict=True):
                parts.append(
                    self.observations(self.prompts[torch.full((len(prefixes),), prompt)], prefixes[:, :length])
                )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def observations(self, prompts: Prompts, tokens: Tensor) -> Observation:
        """Rows as the environment shows them after as many tokens of a response as there are columns."""
        width = self.task.response_length - tokens.shape[1]
        ids = torch.cat([prompts.ids, tokens, torch.full((len(tokens), width), PAD)], dim=1)
        seen = torch.ones(tokens.shape, dtype=torch.bool)
        mask = torch.cat([prompts.mask, seen, torch.zeros((len(tokens), width), dtype=torch.bool)], dim=1)
        return {"input_ids": ids.numpy(), "attention_mask": mask.numpy().astype(np.int8)}

    @property
    def first_states(self) -> Observation:
        """Arrays of their own of the four states in which nothing is said yet."""
        return {name: batch[: len(self.prompts)].copy() for name, batch in self.states.items()}

    def some_states(self, every: int) -> Observation:
        """Arrays of their own of every so many of the states."""
        return {name: batch[::every].copy() for name, batch in self.states.items()}

    def logprobs(self, agent: Any, every: int = 1) -> Float[Tensor, "S V"]:
        """What an agent says of the next token in every state, or in every so many of them."""
        states, parts = self.some_states(every), []
        for start in range(0, len(states["input_ids"]), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            parts.append(torch.as_tensor(agent.logprobs({name: batch[rows] for name, batch in states.items()})))
        return torch.cat(parts).detach()

    def response_logprobs(self, logprobs: Float[Tensor, "S V"]) -> Float[Tensor, "N R"]:
        """log π(y|x) of every response, from what `logprobs` gave."""
        sizes = [block.shape[1] for block in self._prefixes]
        levels = torch.log_softmax(logprobs.double(), dim=1).split([len(self.prompts) * size for size in sizes])
        tree = [level.view(len(self.prompts), size, -1) for level, size in zip(levels, sizes, strict=True)]
        return response_logprobs(tree, EOS)

    def objective(self, logprobs: Float[Tensor, "S V"]) -> Objective:
        """J and its parts of the policy that `logprobs` gave."""
        policy = self.response_logprobs(logprobs)
        return objective_of(policy, self._reference_logprobs, self._rewards, self.task.beta)

    def reward(self, agent: Any) -> float:
        """Mean reward of responses drawn by `predict`, for agents that do not tell their distribution."""
        prompts = self.prompts.repeat(DRAWS)
        ids = torch.full((len(prompts), self.task.response_length), PAD)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        running = torch.ones(len(prompts), dtype=torch.bool)
        for step in range(ids.shape[1]):
            action, _ = agent.predict(self.observations(prompts, ids[:, :step]))
            tokens = torch.as_tensor(action["token"])
            ids[running, step] = tokens[running]
            mask[:, step] = running
            running = running & (tokens != EOS)
        return float(GoldReward(self.task)(Responses(prompts, ids, mask)).mean())

    @cached_property
    def preferences(self) -> Preferences:
        """Comparisons for agents that learn from them."""
        return self.compare(PAIRS)

    def compare(self, pairs: int) -> Preferences:
        """Pairs of the reference's responses, each with the probability σ(u₁ − u₂) that the truth prefers the first.

        What nobody who learns may read is unknown.

        Args:
            pairs: how many to each prompt.
        """
        prompts = self.prompts.repeat(pairs)
        first, second = (
            self.reference.sample(
                prompts, max_tokens=self.task.response_length, generator=torch.Generator().manual_seed(seed)
            ).responses
            for seed in (0, 1)
        )
        truth = GoldReward(self.task)
        unknown = torch.full((len(prompts), 2), torch.nan)
        return Preferences(
            first,
            second,
            label=(truth(first) - truth(second)).sigmoid(),
            rater=["truth"] * len(prompts),
            session_time=torch.zeros(len(prompts), dtype=torch.float64),
            utility=unknown,
            probability=unknown[:, 0],
        )

    @cached_property
    def demonstrations(self) -> Demonstrations:
        """The best of many responses of the reference, for agents that learn from such."""
        generator = torch.Generator().manual_seed(0)
        return best_demonstrations(self.task, self.reference, self.prompts.repeat(DEMONSTRATIONS), generator)

    @cached_property
    def start(self) -> Objective:
        """What the reference is worth."""
        return objective_of(self._reference_logprobs, self._reference_logprobs, self._rewards, self.task.beta)

    @cached_property
    def best(self) -> Objective:
        """What the best policy is worth."""
        return exact_optimum(self.task, self.reference, GoldReward(self.task), self.task.beta).value

    @cached_property
    def prompts(self) -> Prompts:
        """The four prompts, whose empty responses are the first four states."""
        return all_prompts(self.task)

    @cached_property
    def _rewards(self) -> Float[Tensor, "N R"]:
        return all_rewards(self.task, GoldReward(self.task), self.reference)

    @cached_property
    def _reference_logprobs(self) -> Float[Tensor, "N R"]:
        return all_logprobs(self.task, self.reference).double()

    @cached_property
    def _prefixes(self) -> list[Tensor]:
        """The prefixes of each length, (N, 6ᵗ, T), in the order of `textenv.enumeration`."""
        steps, size = self.task.response_length, len(VOCABULARY)
        listed = all_responses(self.prompts, vocab_size=size, max_tokens=steps, eos_id=EOS, pad_id=PAD).ids
        rows = listed.view(len(self.prompts), -1, steps)
        # Each prefix of a length t < T is there once with the end after it, shorter ones first.
        return list(rows.split([(size - 1) ** length for length in range(steps + 1)], dim=1))[:steps]


@cache
def exact_worth() -> ExactWorth:
    """Exact-v0 with its own reference, which nobody may change: agents are given copies."""
    task = tasks.load("exact")
    return ExactWorth(task, models.load(task.reference))
