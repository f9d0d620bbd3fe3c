"""PPO for language models (Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.base import Callback, check_range
from agents.critic import ActorCriticConfig, begin_values, head_apart
from agents.functional.advantages import gae
from agents.functional.masked import masked_whiten
from agents.functional.policy_losses import clipped_surrogate
from agents.functional.value_losses import explained_variance, value_loss
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.minibatches import check_clipped, goes_too_far, minibatches
from agents.policy import ActorCritic
from agents.rollout import collect, rollout_metrics


@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """Settings of PPO."""

    n_epochs: int = 2
    """Passes over each rollout."""
    n_minibatches: int = 2
    """Optimiser steps of an epoch, each on whole prompts with all their responses."""
    clip_range: float = 0.2
    """How far from 1 a probability ratio may go and still be pushed on."""
    stop_kl: float | None = None
    """Nats a token from the policy that sampled beyond which no more steps are taken on the rollout; None takes all."""
    clip_range_vf: float | None = 0.2
    """How far a value may move from its old one, in reward units; None does not clip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_clipped(self)
        if self.clip_range_vf is not None:
            check_range(self, "clip_range_vf", 0, low_included=False)


class PPO(LanguageModelAgent):
    """Proximal policy optimisation, with the KL to the reference paid in the reward.

    Advantages are whitened and tokens averaged, so that a step is not as long as the gradient of J; with GAE's lambda
    of 1 that is all. With the default lambda and a value that tells nothing yet, its first step on Exact-v0 has the
    cosine 0.998 to that gradient and 0.28 of its length (`tests/agents/test_gradient_projections.py`).
    """

    name = "ppo"
    config_class = PPOConfig
    config: PPOConfig
    policy: ActorCritic

    def make_policy(self) -> ActorCritic:
        """Policy and value."""
        value_model = self.starting_model() if self.config.separate_value else None
        return ActorCritic(self.starting_model(), value_model, self.computing)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The trunks and the value head, each with its own learning rate."""
        return head_apart(self.policy, self.config)

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
            rollout = collect(self.env, self.language_model, config, self.generators["sampling"], keep_states=True)
            responses, mask = rollout.responses, rollout.responses.mask

            rewards = rollout.scores.token_rewards
            if config.whiten_rewards:
                rewards = masked_whiten(rewards, mask, shift_mean=False)
            if self.num_timesteps == 0:
                begin_values(self.policy, rewards, mask, config.gamma)
            old = self.policy.recall(rollout.sample, config.n_minibatches)
            advantages, returns = gae(rewards, old.values, mask, config.gamma, config.gae_lambda)
            advantages = masked_whiten(advantages, mask)

            steps: list[dict[str, float]] = []
            for batch in minibatches(responses, config, self.generators["shuffling"]):
                batch_mask = batch.responses.mask
                new = self.policy(batch.responses)
                policy = clipped_surrogate(
                    new.logprobs, batch.cut(old.logprobs), batch.cut(advantages), batch_mask, config.clip_range
                )
                if steps and goes_too_far(policy.approx_kl, config):
                    break
                value = value_loss(
                    new.values, batch.cut(old.values), batch.cut(returns), batch_mask, config.clip_range_vf
                )
                grad_norm = self.step({"policy loss": policy.loss, "value loss": config.vf_coef * value.loss})
                steps.append(
                    {
                        "policy_loss": policy.loss.item(),
                        "value_loss": value.loss.item(),
                        "clip_fraction": policy.clip_fraction.item(),
                        "approx_kl": policy.approx_kl.item(),
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
                "explained_variance": explained_variance(old.values, returns, mask).item(),
                "optimizer_steps": float(len(steps)),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return
