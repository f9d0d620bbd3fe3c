"""Responses sampled to fresh prompts and scored: what every agent that learns from rewards begins an iteration with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.base import check_range
from agents.finite import require_finite
from agents.functional.masked import masked_mean
from agents.language_agent import AgentConfig
from textenv.decoding import Sample
from textenv.kl import k1, k2, k3
from textenv.language_model import LanguageModel
from textenv.precision import numerics
from textenv.products import decoding_precision
from textenv.responses import Responses
from textenv.sampling import Sampling
from textenv.vector_env import Scores, TextVectorEnv


@dataclass(frozen=True)
class RolloutConfig(AgentConfig):
    """The settings that every agent has that samples what it learns from."""

    n_prompts: int = 16
    """Prompts of an iteration; 64 of them reached less on Concierge in as many tokens."""
    group_size: int = 4
    """Responses sampled to each prompt."""
    kl_target: float | None = None
    """Nats an episode that beta is steered to; None keeps the environment's beta."""
    temperature: float = 1.0
    """Divides the policy's logits, in sampling and in everything that is learned and measured."""
    top_k: int | None = None
    """The likeliest tokens that the policy may draw, 2 or more, since of one nothing is tried; None is all of them."""
    top_p: float = 1.0
    """Probability that the fewest likeliest tokens must hold together; the policy draws no others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("n_prompts", "group_size"):
            check_range(self, field, 1, integer=True)
        if self.kl_target is not None:
            check_range(self, "kl_target", 0, low_included=False)
        check_range(self, "temperature", 0, low_included=False)
        if self.top_k is not None:
            check_range(self, "top_k", 2, integer=True)
        check_range(self, "top_p", 0, 1, low_included=False)

    @property
    def sampling(self) -> Sampling:
        """How the policy's tokens are drawn."""
        return Sampling(self.temperature, self.top_k, self.top_p)


class Rollout(NamedTuple):
    """Responses to fresh prompts, sampled in lockstep, and what the environment pays for them."""

    sample: Sample
    scores: Scores

    @property
    def responses(self) -> Responses:
        """What was sampled."""
        return self.sample.responses

    @property
    def logprobs(self) -> Float[Tensor, "B T"]:
        """Log-probability of each token under the policy, as it sampled."""
        return self.sample.logprobs

    @property
    def tokens(self) -> int:
        """Response tokens generated, end-of-sequence tokens included."""
        return int(self.responses.mask.sum())


def collect(
    env: TextVectorEnv,
    language_model: LanguageModel,
    config: RolloutConfig,
    generator: torch.Generator,
    *,
    keep_states: bool = False,
) -> Rollout:
    """Samples responses to fresh prompts and has them scored all at once.

    Args:
        env: gives the prompts and scores the responses.
        language_model: the policy.
        config: tells how many prompts, and how many responses to each.
        generator: draws the tokens.
        keep_states: keep the final hidden states, for a value head to read.

    Raises:
        TextenvError: a log-probability or a score is not finite.
    """
    prompts = env.sample_prompts(config.n_prompts)
    # An agent has settled what "auto" comes to; without one, tokens are drawn in float32.
    learning = "float32" if config.precision == "auto" else config.precision
    with numerics(decoding_precision(language_model, learning)):
        sample = language_model.sample(
            prompts,
            group_size=config.group_size,
            max_tokens=env.task.response_length,
            generator=generator,
            keep_states=keep_states,
        )
    require_finite({"policy's log-probability": sample.logprobs})
    scores = env.score(sample.responses, sample.logprobs)
    require_finite({"reward": scores.score, "reference's log-probability": scores.reference_logprobs})
    return Rollout(sample, scores)


def rollout_metrics(rollout: Rollout, env: TextVectorEnv) -> dict[str, float]:
    """Means over the episodes of a rollout; the KL is in nats an episode, estimated by k1, k2 and k3."""
    responses, logprobs, scores = rollout.responses, rollout.logprobs, rollout.scores
    kl, kl_k2, kl_k3 = (
        float(estimate(logprobs, scores.reference_logprobs).masked_fill(~responses.mask, 0.0).sum(dim=1).mean())
        for estimate in (k1, k2, k3)
    )
    reward = float(scores.score.mean())
    metrics = {
        "reward": reward,
        "kl": kl,
        "kl_k2": kl_k2,
        "kl_k3": kl_k3,
        # J is always judged at the task's own beta, whatever beta training uses just now.
        "objective": reward - env.task.beta * kl,
        "beta": env.beta,
        "response_length": float(responses.lengths.float().mean()),
        "eos_rate": float(responses.ended(env.eos_id).float().mean()),
        "entropy": float(masked_mean(rollout.sample.entropy, responses.mask)),
    }
    if scores.gold is not None:
        metrics |= {"gold": float(scores.gold.score.mean()), "utility": float(scores.gold.utility.mean())}
    return metrics
