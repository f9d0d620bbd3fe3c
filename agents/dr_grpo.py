"""GRPO without its biases (Liu et al. 2025, "Dr. GRPO", arXiv:2503.20783), with the exact KL in the loss."""

from __future__ import annotations

from dataclasses import dataclass

from agents.base import Callback, check_range
from agents.exact_kl import ActorWithReference
from agents.functional.advantages import leave_one_out_with_kl
from agents.functional.masked import sum_of_responses
from agents.functional.policy_losses import clipped_surrogate
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.minibatches import check_clipped, goes_too_far, minibatches
from agents.rollout import RolloutConfig, collect, rollout_metrics


@dataclass(frozen=True)
class DrGRPOConfig(RolloutConfig):
    """Settings of unscaled GRPO."""

    n_epochs: int = 1
    """Passes over each rollout."""
    n_minibatches: int = 2
    """Optimiser steps of an epoch, each on whole prompts with all their responses."""
    clip_range: float = 0.2
    """How far from 1 a token's probability ratio may go and still be pushed on."""
    stop_kl: float | None = None
    """Nats a token from the policy that sampled beyond which no more steps are taken on the rollout; None takes all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "group_size", 2, integer=True)
        check_clipped(self)


class DrGRPO(LanguageModelAgent):
    """Group relative policy optimisation whose gradient, on the policy that sampled, is that of the objective J.

    What GRPO divides by is left out: advantages are not in standard deviations of their group, and the loss sums
    over a response's tokens. The KL to the reference is in the loss, as there, but as the sum over the
    vocabulary at the visited states instead of k3. That sum tells what a token's distribution costs, not that
    it leads to states that cost more, so the KL of the tokens after it counts against each token as part of its
    return. The baseline is the mean of the other responses: the group's own mean, which holds the response
    itself, would make (k − 1)/k of the rewards and leave the KL whole.
    """

    name = "dr-grpo"
    config_class = DrGRPOConfig
    config: DrGRPOConfig
    policy: ActorWithReference

    def make_policy(self) -> ActorWithReference:
        """The policy, beside the reference."""
        return ActorWithReference(self.starting_model(), self.env.reference, self.computing)

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

            # Decoding told the log-probabilities, but not the KL.
            old = self.policy.evaluate(responses, config.n_minibatches)
            advantages = leave_one_out_with_kl(rollout.scores.score, self.env.beta * old.kl, mask, config.group_size)

            steps: list[dict[str, float]] = []
            for batch in minibatches(responses, config, self.generators["shuffling"]):
                batch_mask = batch.responses.mask
                new = self.policy(batch.responses)
                policy = clipped_surrogate(
                    new.logprobs,
                    batch.cut(old.logprobs),
                    batch.cut(advantages),
                    batch_mask,
                    config.clip_range,
                    sum_of_responses,
                )
                if steps and goes_too_far(policy.approx_kl, config):
                    break
                kl = sum_of_responses(new.kl, batch_mask)
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
                "kl_exact": old.kl.sum(dim=1).mean().item(),
                # Before the first step old and new policy are one, so this is 0 up to rounding.
                "ratio_deviation": steps[0]["ratio_deviation"],
                "rollout_deviation": ((old.logprobs - rollout.logprobs).exp() - 1).abs().max().item(),
                "optimizer_steps": float(len(steps)),
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return
