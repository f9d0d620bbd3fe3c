"""Supervised learning conditioned on the rank of the reward, as Quark does it (Lu et al. 2022, arXiv:2205.13636)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from agents.base import Callback, check_range
from agents.comparisons import response_tensors, responses_of
from agents.functional.masked import masked_mean
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.policy import Actor, Computing, drawn_from, in_turns, trained
from agents.rollout import RolloutConfig, collect, rollout_metrics
from textenv.decoding import predictions, spread, token_logprobs
from textenv.errors import UsageError
from textenv.kl import full_kl
from textenv.language_model import LanguageModel
from textenv.precision import numerics
from textenv.responses import Prompts, Responses
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class ConditionedConfig(RolloutConfig):
    """Settings of reward-conditioned learning."""

    n_ranks: int = 5
    """Ranks, each of an equal share of all responses so far: quintiles are 5, as published."""
    rank_learning_rate: float = 5e-3
    """The learning rate of the ranks' embeddings, which begin at nothing."""
    n_steps: int = 4
    """Optimiser steps after each rollout."""
    batch_size: int = 64
    """Responses of an optimiser step, drawn from all so far; all of them where there are fewer."""
    kl_coef: float = 0.05
    """Weight of the KL from the reference in the loss, in nats a token, beside that which is paid."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "n_ranks", 2, integer=True)
        check_range(self, "rank_learning_rate", 0, low_included=False)
        for field in ("n_steps", "batch_size"):
            check_range(self, field, 1, integer=True)
        check_range(self, "kl_coef", 0)
        if self.n_ranks > self.n_prompts * self.group_size:
            raise UsageError(
                f"{type(self).__name__}.n_ranks is {self.n_ranks}, expected at most n_prompts times group_size = "
                f"{self.n_prompts * self.group_size}, because each rank needs a response"
            )


class RankConditioned(Actor):
    """A policy that can be told which rank its response shall have, by a vector added to every token's embedding.

    The best rank, number 0, has none. So what answers when nothing is said of ranks is a plain language model with
    the best rank as its condition, to be decoded, judged and saved like any other.

    Args:
        language_model: what is trained; it is no copy.
        n_ranks: ranks, of which all but the best have a vector.
        computing: how it goes through examples.
    """

    def __init__(self, language_model: LanguageModel, n_ranks: int, computing: Computing) -> None:
        super().__init__(language_model, computing)
        width = self.trunk.get_input_embeddings().weight.shape[1]
        self.rank_embeddings = nn.Parameter(torch.zeros(n_ranks - 1, width))

    def conditioned(
        self, responses: Responses, ranks: Int[Tensor, " B"], reference: LanguageModel
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Log-probability of each response token given the response's rank, and KL(π_ref‖π) in nats before it.

        Both are of π at the temperature that it draws with, but over all tokens: what an older policy's top k or
        nucleus let it draw may lie outside the present one's, where the KL would be infinite.

        Args:
            responses: each with a prompt of its own (k = 1), since the rank is in the prompt too.
            ranks: 0 is the best.
            reference: what the KL is from, which is told no rank.
        """
        # A token's id tells its rank as well, so that all that lies between here and the embedding need not know.
        shift, prompts = ranks[:, None] * self.language_model.vocab_size, responses.prompts
        ranked = Responses(Prompts(prompts.ids + shift, prompts.mask), responses.ids + shift, responses.mask)
        outputs = in_turns(partial(self._ranked, reference), self.computing.parts, ranked, responses)
        return outputs[0], outputs[1]

    def _ranked(self, reference: LanguageModel, ranked: Responses, plain: Responses) -> tuple[Tensor, Tensor]:
        with numerics(self.computing.precision):
            with self._ranks_in_ids():
                logits = predictions(self.trunk, ranked).logits
            with torch.no_grad():
                reference_logits = predictions(reference.model, plain).logits
        drawn = drawn_from(logits, plain, self.language_model)
        logprobs = token_logprobs(drawn, plain.ids[plain.mask])
        kl = full_kl(reference_logits.float(), drawn.float())
        return spread(logprobs, plain.mask), spread(kl, plain.mask)

    @contextmanager
    def _ranks_in_ids(self) -> Iterator[None]:
        plain = self.trunk.get_input_embeddings()
        self.trunk.set_input_embeddings(_RankedEmbedding(plain, self.rank_embeddings, self.language_model.vocab_size))
        try:
            yield
        finally:
            self.trunk.set_input_embeddings(plain)


class _RankedEmbedding(nn.Module):
    def __init__(self, plain: nn.Module, of_ranks: Float[Tensor, "ranks H"], vocab_size: int) -> None:
        super().__init__()
        self.plain, self.vocab_size = plain, vocab_size
        self.of_ranks = torch.nn.functional.pad(of_ranks, (0, 0, 1, 0))

    def forward(self, ids: Int[Tensor, "*n"]) -> Float[Tensor, "*n H"]:
        embedded: Tensor = self.plain(ids % self.vocab_size)
        return embedded + self.of_ranks[ids // self.vocab_size]


class Pool:
    """Every response so far, with its prompt and what was paid for it."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []
        self.responses: list[list[int]] = []
        self.rewards: Float[Tensor, " n"] = torch.empty(0)

    def add(self, responses: Responses, rewards: Float[Tensor, " B"]) -> None:
        """Takes up a rollout."""
        self.prompts += responses.ungrouped().prompts.to_lists()
        self.responses += responses.to_lists()
        self.rewards = torch.cat([self.rewards, rewards])

    def rows(self, index: Int[Tensor, " b"], pad_id: int) -> Responses:
        """Some of the responses, each with a prompt of its own."""
        prompts = Prompts.from_lists([self.prompts[row] for row in index.tolist()], pad_id)
        return Responses.from_lists(prompts, [self.responses[row] for row in index.tolist()], pad_id)


class Conditioned(LanguageModelAgent):
    """Samples as the best rank, ranks all that ever came by reward, and learns it by cross-entropy given its rank.

    What is ranked is what the environment paid, the KL to the reference included. Quark ranks the score alone; else
    this is Quark, but for how the policy is told the rank. All prompts' responses are ranked together, so a prompt
    whose responses are paid more has more good ranks. The steps are no estimate of the gradient of J, and J's optimum
    is not where they lead: the best rank is a share of what came, however much better some of it is.
    """

    name = "conditioned"
    config_class = ConditionedConfig
    config: ConditionedConfig
    policy: RankConditioned

    def __init__(self, env: TextVectorEnv, config: ConditionedConfig, seed: int, data: None = None) -> None:
        super().__init__(env, config, seed, data)
        self.pool = Pool()

    def make_policy(self) -> RankConditioned:
        """The policy and the embeddings of the ranks."""
        return RankConditioned(self.starting_model(), self.config.n_ranks, self.computing)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The language model's parameters and the ranks', each with its own learning rate."""
        ranks = self.policy.rank_embeddings
        others = [weight for weight in trained(self.policy.parameters()) if weight is not ranks]
        return [
            {"params": others, "lr": self.config.learning_rate},
            {"params": [ranks], "lr": self.config.rank_learning_rate},
        ]

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on up to the first iteration that ends at or beyond `total_timesteps` response tokens.

        Args:
            total_timesteps: tokens generated, counted from the agent's birth, also after `load`. The learning rate
                reaches 0 there, so a run that is continued must be given the same number.
            callback: called after each iteration with the agent and its metrics; False stops.

        Raises:
            TextenvError: a reward, a loss or a gradient is not finite; the weights before it are kept.
        """
        config, reference = self.config, self.env.reference
        control = kl_control(config.kl_target, self.env.beta)
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            rollout = collect(self.env, self.language_model, config, self.generators["sampling"])
            self.pool.add(rollout.responses, rollout.scores.token_rewards.sum(dim=1))
            ranks = ranks_of(self.pool.rewards, config.n_ranks)

            steps: list[dict[str, float]] = []
            for _ in range(config.n_steps):
                order = torch.randperm(len(ranks), generator=self.generators["shuffling"])
                batch = self.pool.rows(order[: config.batch_size], reference.pad_id)
                logprobs, kls = self.policy.conditioned(batch, ranks[order[: config.batch_size]], reference)
                cross_entropy, kl = masked_mean(-logprobs, batch.mask), masked_mean(kls, batch.mask)
                grad_norm = self.step({"cross-entropy": cross_entropy, "KL loss": config.kl_coef * kl})
                steps.append({"cross_entropy": cross_entropy.item(), "kl_loss": kl.item(), "grad_norm": grad_norm})

            metrics = rollout_metrics(rollout, self.env)
            metrics |= {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            metrics |= {
                "kl_loss": config.kl_coef * metrics["kl_loss"],
                "best_rank_rate": (ranks[-len(rollout.responses) :] == 0).float().mean().item(),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the pool among it."""
        if not self.pool.responses:
            return super().tensors()
        everything = self.pool.rows(torch.arange(len(self.pool.responses)), self.env.reference.pad_id)
        return super().tensors() | response_tensors(everything) | {"data.rewards": self.pool.rewards}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was."""
        super().restore(tensors)
        self.pool = Pool()
        if "data.rewards" in tensors:
            self.pool.add(responses_of(tensors), tensors["data.rewards"])


def ranks_of(rewards: Float[Tensor, " n"], n_ranks: int) -> Int[Tensor, " n"]:
    """The rank of each reward, 0 for the highest, each rank with an equal share of them.

    Equal rewards have the same rank: that of the middle one of their places.
    """
    ordered = rewards.sort().values
    below = torch.searchsorted(ordered, rewards)
    above = len(rewards) - torch.searchsorted(ordered, rewards, right=True)
    place = (above + len(rewards) - 1 - below) / 2
    return (place * n_ranks / len(rewards)).long()
