"""Expert iteration for language models, as RAFT does it (Dong et al. 2023, arXiv:2304.06767)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.base import Callback, check_range
from agents.functional.masked import masked_mean
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.minibatches import check_minibatches, minibatches
from agents.policy import Actor
from agents.rollout import RolloutConfig, collect, rollout_metrics


@dataclass(frozen=True)
class ExpertIterationConfig(RolloutConfig):
    """Settings of expert iteration."""

    group_size: int = 8
    """Responses sampled to each prompt; the best of them is imitated."""
    n_epochs: int = 2
    """Passes over the best responses of each rollout."""
    n_minibatches: int = 1
    """Optimiser steps of an epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "group_size", 2, integer=True)
        check_minibatches(self)


class ExpertIteration(LanguageModelAgent):
    """Samples responses to each prompt, keeps the best of them, and learns these as if they were demonstrations.

    Best is what the environment pays most for, the KL to the reference included, as in the paper's section 4.2.
    The loss is the cross-entropy of the best responses' tokens. It does not weigh how much better they are, so
    that its policy is not that of the optimum of J: what keeps it near the reference is the KL that is paid. On
    Exact-v0 a step has the cosine 0.857 to the gradient of J and 0.28 of its length
    (`tests/agents/test_gradient_projections.py`).
    """

    name = "expert-iteration"
    config_class = ExpertIterationConfig
    config: ExpertIterationConfig
    policy: Actor

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on up to the first iteration that ends at or beyond `total_timesteps` response tokens.

        Args:
            total_timesteps: counted from the agent's birth, also after `load`. The learning rate
                reaches 0 there, so a run that is continued must be given the same number.
            callback: called after each iteration with the agent and its metrics; False stops.

        Raises:
            TextenvError: a reward, a loss or a gradient is not finite; the weights before it are kept.
        """
        config = self.config
        control = kl_control(config.kl_target, self.env.beta)
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            rollout = collect(self.env, self.language_model, config, self.generators["sampling"])
            best = best_of_groups(rollout.scores.token_rewards.sum(dim=1), config.group_size)
            experts = rollout.responses.one_of_each(best)

            steps: list[dict[str, float]] = []
            for batch in minibatches(experts, config, self.generators["shuffling"]):
                new = self.policy(batch.responses)
                loss = masked_mean(-new, batch.responses.mask)
                sampled = batch.cut(rollout.logprobs[best])
                grad_norm = self.step({"cross-entropy": loss})
                steps.append(
                    {
                        "cross_entropy": loss.item(),
                        "ratio_deviation": ((new.detach() - sampled).exp() - 1).abs().max().item(),
                        "grad_norm": grad_norm,
                    }
                )

            metrics = rollout_metrics(rollout, self.env)
            metrics |= {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            metrics |= {
                "reward_best": rollout.scores.score[best].mean().item(),
                # Before the first step old and new policy are one, so this is 0 up to rounding.
                "ratio_deviation": steps[0]["ratio_deviation"],
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return


def best_of_groups(rewards: Float[Tensor, " B"], group_size: int) -> Int[Tensor, " N"]:
    """The row of the highest reward of each group, the first one among equals."""
    best = rewards.view(-1, group_size).argmax(dim=1)
    return torch.arange(len(best)) * group_size + best
