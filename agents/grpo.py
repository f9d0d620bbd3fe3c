"""GRPO for language models (Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass

from agents.base import Callback, check_range
from agents.functional.advantages import group_relative
from agents.functional.masked import mean_of_responses
from agents.functional.policy_losses import clipped_surrogate
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.minibatches import check_clipped, goes_too_far, minibatches
from agents.policy import Actor
from agents.rollout import RolloutConfig, collect, rollout_metrics
from textenv.kl import k3


@dataclass(frozen=True)
class GRPOConfig(RolloutConfig):
    """Settings of GRPO."""

    n_epochs: int = 1
    """Passes over each rollout."""
    n_minibatches: int = 2
    """Optimiser steps of an epoch, each on whole prompts with all their responses."""
    clip_range: float = 0.2
    """How far from 1 a token's probability ratio may go and still be pushed on."""
    stop_kl: float | None = None
    """Nats a token from the policy that sampled beyond which no more steps are taken on the rollout; None takes all."""
    scale_rewards: bool = True
    """Divide a group's advantages by its standard deviation, as published; without it a prompt weighs as much as its
    rewards differ, as in J."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "group_size", 2, integer=True)
        check_clipped(self)


class GRPO(LanguageModelAgent):
    """Group relative policy optimisation, with the KL to the reference in the loss.

    The score alone is the reward. The loss is PPO's clipped one plus β times the KL estimator k3, averaged over
    the tokens of each response and then over the responses, as published. So it does not climb J: a token of
    a short response weighs more than one of a long response (Liu et al. 2025, arXiv:2503.20783), k3's gradient
    is that of KL(π_ref‖π) at the states that are visited, and the advantages are in standard deviations of
    their group while the KL is in nats. β is the environment's.

    On Exact-v0 a step has the cosine 0.915 to the gradient of J and 0.23 of its length, 0.935 and 0.25 without
    `scale_rewards` (`tests/agents/test_gradient_projections.py`).

    So where it goes is not where J is best. On Exact-v0 it came to 0.91 of the optimum in 300,000 tokens, 0.14 away
    from π* in total variation (`benchmarks/results/exact`). A long run passes by what is best: with the defaults, which
    are for the 40,000 tokens of `textenv train`, it had 0.73 to 0.82 of Concierge's optimum after 25,000 tokens, 5 to 6
    nats from the reference, and 0.49 after 200,000, 12.7 nats away; the narrower its groups become, the more their
    advantages outweigh the KL. With a `learning_rate` of 1e-4 it was 0.41 after 40,000 and 0.79 after 200,000
    (`benchmarks/results/concierge`, three seeds). `dr-grpo` does not: 0.96 after 200,000, with defaults and one seed.
    """

    name = "grpo"
    config_class = GRPOConfig
    config: GRPOConfig
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
            responses, mask = rollout.responses, rollout.responses.mask

            advantages = group_relative(rollout.scores.score, config.group_size, scale=config.scale_rewards)
            token_advantages = advantages[:, None].expand(mask.shape)
            old = self.policy.recall(rollout.sample, config.n_minibatches)

            steps: list[dict[str, float]] = []
            for batch in minibatches(responses, config, self.generators["shuffling"]):
                batch_mask = batch.responses.mask
                new = self.policy(batch.responses)
                policy = clipped_surrogate(
                    new,
                    batch.cut(old),
                    batch.cut(token_advantages),
                    batch_mask,
                    config.clip_range,
                    mean_of_responses,
                )
                if steps and goes_too_far(policy.approx_kl, config):
                    break
                kl = mean_of_responses(k3(new, batch.cut(rollout.scores.reference_logprobs)), batch_mask)
                grad_norm = self.step({"policy loss": policy.loss, "KL loss": self.env.beta * kl})
                steps.append(
                    {
                        "policy_loss": policy.loss.item(),
                        "kl_loss": self.env.beta * kl.item(),
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
