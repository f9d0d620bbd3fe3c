"""RLOO for language models (Ahmadian et al. 2024, arXiv:2402.14740): the other responses are the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from agents.base import Callback, check_range
from agents.functional.advantages import leave_one_out
from agents.functional.policy_losses import clipped_response_surrogate
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.minibatches import check_clipped, goes_too_far, minibatches
from agents.policy import Actor
from agents.rollout import RolloutConfig, collect, rollout_metrics


@dataclass(frozen=True)
class RLOOConfig(RolloutConfig):
    """Settings of RLOO."""

    n_epochs: int = 2
    """Passes over each rollout."""
    n_minibatches: int = 2
    """Optimiser steps of an epoch, each on whole prompts with all their responses."""
    clip_range: float = 0.2
    """How far from 1 the ratio of a response's probabilities may go and still be pushed on; at work from the second
    step on a rollout."""
    stop_kl: float | None = None
    """Nats a token from the policy that sampled beyond which no more steps are taken on the rollout; None takes all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "group_size", 2, integer=True)
        check_clipped(self)


class RLOO(LanguageModelAgent):
    """REINFORCE with the mean of a prompt's other responses as baseline, and the KL to the reference in the reward.

    A whole response is one action, with the reward R = score − β·Σ_t(log π − log π_ref). The loss is the mean
    over responses of −A·Σ_t log π(y_t): summed over tokens, not averaged, so that its gradient on the policy
    that sampled is that of −J, without bias. A mean over tokens would make less of each long response.
    """

    name = "rloo"
    config_class = RLOOConfig
    config: RLOOConfig
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
            responses = rollout.responses

            rewards = rollout.scores.token_rewards.sum(dim=1)
            advantages = leave_one_out(rewards, config.group_size)
            old = self.policy.recall(rollout.sample, config.n_minibatches)

            steps: list[dict[str, float]] = []
            for batch in minibatches(responses, config, self.generators["shuffling"]):
                policy = clipped_response_surrogate(
                    self.policy(batch.responses),
                    batch.cut(old),
                    batch.cut(advantages),
                    batch.responses.mask,
                    config.clip_range,
                )
                if steps and goes_too_far(policy.approx_kl, config):
                    break
                grad_norm = self.step({"policy loss": policy.loss})
                steps.append(
                    {
                        "policy_loss": policy.loss.item(),
                        "clip_fraction": policy.clip_fraction.item(),
                        "approx_kl": policy.approx_kl.item(),
                        "ratio_deviation": policy.ratio_deviation.item(),
                        "grad_norm": grad_norm,
                    }
                )

            metrics = rollout_metrics(rollout, self.env)
            metrics |= {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            metrics |= {
                # Before the first step old and new policy are one, so this is 0 up to rounding.
                "ratio_deviation": steps[0]["ratio_deviation"],
                "rollout_deviation": ((old - rollout.logprobs).exp() - 1).abs().max().item(),
                "optimizer_steps": float(len(steps)),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return
