"""A2C for language models: one policy-gradient step on each rollout (Mnih et al. 2016, arXiv:1602.01783)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.base import Callback
from agents.critic import ActorCriticConfig, begin_values, head_apart
from agents.functional.advantages import gae
from agents.functional.masked import masked_whiten
from agents.functional.policy_losses import policy_gradient_loss
from agents.functional.value_losses import explained_variance, value_loss
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.policy import ActorCritic
from agents.rollout import collect, rollout_metrics


@dataclass(frozen=True)
class A2CConfig(ActorCriticConfig):
    """Settings of A2C."""

    learning_rate: float = 1e-3
    """Adam's step size at its highest."""
    vf_coef: float = 0.5
    """Weight of the value loss."""


class A2C(LanguageModelAgent):
    """Advantage actor-critic, with the KL to the reference paid in the reward.

    Advantages are whitened and tokens averaged, so that a step is not as long as the gradient of J; with GAE's lambda
    of 1 that is all. With the default lambda and a value that tells nothing yet, its first step on Exact-v0 has the
    cosine 0.998 to that gradient and 0.28 of its length (`tests/agents/test_gradient_projections.py`).
    """

    name = "a2c"
    config_class = A2CConfig
    config: A2CConfig
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
            rollout = collect(self.env, self.language_model, config, self.generators["sampling"])
            mask = rollout.responses.mask

            rewards = rollout.scores.token_rewards
            if config.whiten_rewards:
                rewards = masked_whiten(rewards, mask, shift_mean=False)
            if self.num_timesteps == 0:
                begin_values(self.policy, rewards, mask, config.gamma)
            new = self.policy(rollout.responses)
            values = new.values.detach()
            advantages, returns = gae(rewards, values, mask, config.gamma, config.gae_lambda)
            advantages = masked_whiten(advantages, mask)

            policy_loss = policy_gradient_loss(new.logprobs, advantages, mask)
            critic = value_loss(new.values, values, returns, mask, clip_range=None)
            grad_norm = self.step({"policy loss": policy_loss, "value loss": config.vf_coef * critic.loss})

            deviation = ((new.logprobs.detach() - rollout.logprobs).exp() - 1).abs().max().item()
            metrics = rollout_metrics(rollout, self.env) | {
                "policy_loss": policy_loss.item(),
                "value_loss": critic.loss.item(),
                "grad_norm": grad_norm,
                # The policy that is updated is the one that sampled, so this is 0 up to rounding.
                "ratio_deviation": deviation,
                "explained_variance": explained_variance(values, returns, mask).item(),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return
