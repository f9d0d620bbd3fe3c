"""PPO for language models (Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agents.base import Callback, check_range
from agents.functional import clipped_surrogate, explained_variance, gae, masked_mean, masked_whiten, value_loss
from agents.on_policy import OnPolicyAgent, OnPolicyConfig, collect, rollout_metrics
from agents.policy import rows_of
from textenv.errors import UsageError


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Settings of PPO."""

    n_epochs: int = 2
    """Passes over each rollout."""
    n_minibatches: int = 2
    """Optimiser steps of an epoch, each on whole prompts with all their responses."""
    clip_range: float = 0.2
    """How far from 1 a probability ratio may go and still be pushed on."""
    clip_range_vf: float | None = 0.2
    """How far a value may move from its old one, in reward units; None does not clip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("n_epochs", "n_minibatches"):
            check_range(self, field, 1, integer=True)
        check_range(self, "clip_range", 0, low_included=False)
        if self.clip_range_vf is not None:
            check_range(self, "clip_range_vf", 0, low_included=False)
        if self.n_minibatches > self.n_prompts:
            raise UsageError(
                f"PPOConfig.n_minibatches is {self.n_minibatches}, expected at most n_prompts = {self.n_prompts}, "
                "because the responses to a prompt stay together"
            )


class PPO(OnPolicyAgent):
    """Proximal policy optimisation, with the KL to the reference paid in the reward."""

    name = "ppo"
    config_class = PPOConfig
    config: PPOConfig

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
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            rollout = collect(
                self.env, self.language_model, config.n_prompts, config.group_size, self.generators["sampling"]
            )
            responses, mask = rollout.responses, rollout.responses.mask

            rewards = rollout.scores.token_rewards
            if config.whiten_rewards:
                rewards = masked_whiten(rewards, mask, shift_mean=False)
            self.begin_values(rewards, mask)
            # Old log-probabilities in the update's numerics: decoding with a cache rounds otherwise.
            old = self.policy.evaluate(responses, config.n_minibatches)
            advantages, returns = gae(rewards, old.values, mask, config.gamma, config.gae_lambda)
            advantages = masked_whiten(advantages, mask)

            steps: list[dict[str, float]] = []
            for _ in range(config.n_epochs):
                order = torch.randperm(config.n_prompts, generator=self.generators["shuffling"])
                for groups in order.tensor_split(config.n_minibatches):
                    batch = responses.groups(groups)
                    rows, columns = rows_of(groups, config.group_size), slice(batch.ids.shape[1])
                    old_logprobs, old_values, batch_advantages, batch_returns = (
                        tensor[rows, columns] for tensor in (old.logprobs, old.values, advantages, returns)
                    )
                    new = self.policy(batch)
                    policy = clipped_surrogate(
                        new.logprobs, old_logprobs, batch_advantages, batch.mask, config.clip_range
                    )
                    value = value_loss(new.values, old_values, batch_returns, batch.mask, config.clip_range_vf)
                    grad_norm = self.step({"policy loss": policy.loss, "value loss": config.vf_coef * value.loss})
                    steps.append(
                        {
                            "policy_loss": policy.loss.item(),
                            "value_loss": value.loss.item(),
                            "clip_fraction": policy.clip_fraction.item(),
                            "value_clip_fraction": value.clip_fraction.item(),
                            "ratio_deviation": policy.ratio_deviation.item(),
                            "grad_norm": grad_norm,
                        }
                    )

            metrics = rollout_metrics(rollout, self.env)
            metrics |= {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            metrics |= {
                # Before the first step old and new policy are one, so this is 0 up to rounding.
                "ratio_deviation": steps[0]["ratio_deviation"],
                "rollout_deviation": ((old.logprobs - rollout.logprobs).exp() - 1).abs().max().item(),
                "entropy": masked_mean(old.entropy, mask).item(),
                "explained_variance": explained_variance(old.values, returns, mask).item(),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = self.kl_control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return
