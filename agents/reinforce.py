"""REINFORCE for language models (Williams 1992, "Simple statistical gradient-following algorithms")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agents.base import Callback, check_choice, check_range
from agents.functional.advantages import leave_one_out
from agents.functional.policy_losses import response_policy_gradient_loss
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.policy import Actor
from agents.rollout import RolloutConfig, collect, rollout_metrics


@dataclass(frozen=True)
class ReinforceConfig(RolloutConfig):
    """Settings of REINFORCE."""

    learning_rate: float = 1e-3
    """Adam's step size at its highest."""
    baseline: Literal["running", "prompt"] = "running"
    """What a response is compared with: a running mean of all rewards, or the mean of the others to its prompt."""
    baseline_decay: float = 0.9
    """How much of the running mean is kept at each iteration; the rest is the iteration's mean reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "baseline", Literal["running", "prompt"])
        check_range(self, "baseline_decay", 0, 1)
        if self.baseline == "prompt":
            check_range(self, "group_size", 2, integer=True)


class Reinforce(LanguageModelAgent):
    """One policy-gradient step on each rollout, with a baseline and the KL to the reference in the reward.

    A whole response is one action, with the reward R = score − β·Σ_t(log π − log π_ref). The loss is the mean over
    responses of −(R − b)·Σ_t log π(y_t), whose gradient is that of −J: neither baseline b depends on the response
    that it is subtracted for, but that the running mean begins as the first rollout's own.
    """

    name = "reinforce"
    config_class = ReinforceConfig
    config: ReinforceConfig
    policy: Actor
    running_mean: Tensor | None = None
    """Of the rewards R so far, before this iteration's; None before the first."""

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

            rewards = rollout.scores.token_rewards.sum(dim=1)
            advantages = self.advantages(rewards)
            new = self.policy(rollout.responses)
            loss = response_policy_gradient_loss(new, advantages, rollout.responses.mask)
            grad_norm = self.step({"policy loss": loss})

            metrics = rollout_metrics(rollout, self.env) | {
                "policy_loss": loss.item(),
                "grad_norm": grad_norm,
                "baseline": (rewards - advantages).mean().item(),
                # What the baseline leaves of the rewards' spread is the noise of the gradient.
                "advantage_deviation": advantages.std(correction=0).item(),
                # The policy that is updated is the one that sampled, so this is 0 up to rounding.
                "ratio_deviation": ((new.detach() - rollout.logprobs).exp() - 1).abs().max().item(),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return

    def advantages(self, rewards: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The rewards less the baseline; moves the running mean, if that is the baseline, to what has come."""
        if self.config.baseline == "prompt":
            return leave_one_out(rewards, self.config.group_size)
        baseline = rewards.mean() if self.running_mean is None else self.running_mean
        self.running_mean = torch.lerp(rewards.mean(), baseline, self.config.baseline_decay)
        return rewards - baseline

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the running mean among it."""
        return super().tensors() | ({} if self.running_mean is None else {"running_mean": self.running_mean})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was."""
        super().restore(tensors)
        self.running_mean = tensors.get("running_mean")
