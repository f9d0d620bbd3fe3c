"""Online DPO for language models (Guo et al. 2024, arXiv:2402.04792): pairs of the policy's own responses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agents.base import Callback, check_choice, check_range
from agents.comparisons import check_pair_loss
from agents.functional.preference_losses import PairLoss, preference_loss
from agents.kl_control import kl_control
from agents.language_agent import LanguageModelAgent
from agents.minibatches import check_minibatches, minibatches
from agents.policy import Actor
from agents.rollout import RolloutConfig, collect, rollout_metrics
from textenv.errors import UsageError
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class OnlineDPOConfig(RolloutConfig):
    """Settings of online DPO."""

    n_epochs: int = 1
    """Passes over each rollout."""
    n_minibatches: int = 2
    """Optimiser steps of an epoch, each on whole prompts with all their responses."""
    loss: PairLoss = "sigmoid"
    """Published as DPO is sigmoid; ipo and hinge stop at a margin, and robust allows for labels turned round."""
    label_smoothing: float = 0.0
    """Share of the labels that are held to be wrong: with sigmoid this is cDPO, and robust needs it."""
    pair_labels: Literal["soft", "hard"] = "soft"
    """What the reward says of a pair: the probability σ(r₁ − r₂) that the first wins, or which is better."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "group_size", 2, integer=True)
        check_minibatches(self)
        check_pair_loss(self)
        check_choice(self, "pair_labels", Literal["soft", "hard"])


class OnlineDPO(LanguageModelAgent):
    """DPO on comparisons of fresh responses, which the reward judges in the place of a rater.

    All pairs of a prompt's responses are compared. With soft labels and the sigmoid loss the gradient vanishes
    at the optimum of J, whatever the responses; with hard ones the policy goes on to whatever wins. The KL is
    not paid: it is in the loss, whose β is the environment's.

    On Exact-v0 a step has the cosine 0.999 to the gradient of J and 0.16 of its length, with hard labels 0.995 and
    0.26 (`tests/agents/test_gradient_projections.py`).
    """

    name = "online-dpo"
    config_class = OnlineDPOConfig
    config: OnlineDPOConfig
    policy: Actor
    needs_beta = True

    def __init__(self, env: TextVectorEnv, config: OnlineDPOConfig, seed: int, data: None = None) -> None:
        super().__init__(env, config, seed, data)
        if env.beta <= 0:
            raise UsageError("online-dpo stays near the reference by beta, which is 0; expected is a beta above 0")

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
            score, reference_logprobs = rollout.scores.score, rollout.scores.reference_logprobs.sum(dim=1)

            steps: list[dict[str, float]] = []
            for batch in minibatches(rollout.responses, config, self.generators["shuffling"]):
                pairs = pairs_of_groups(len(batch.rows), config.group_size)
                new = self.policy(batch.responses)
                result = preference_loss(
                    new.sum(dim=1)[pairs],
                    batch.cut(reference_logprobs)[pairs],
                    labels_of(batch.cut(score)[pairs], config.pair_labels),
                    self.env.beta,
                    config.loss,
                    config.label_smoothing,
                )
                grad_norm = self.step({"loss": result.loss})
                deviation = ((new.detach() - batch.cut(rollout.logprobs)).exp() - 1).abs().max().item()
                steps.append(
                    {
                        "loss": result.loss.item(),
                        "accuracy": result.accuracy.item(),
                        "reward_margin": result.margin.item(),
                        "reward_chosen": result.chosen_reward.item(),
                        "reward_rejected": result.rejected_reward.item(),
                        "logprob_chosen": result.chosen_logprob.item(),
                        "ratio_deviation": deviation,
                        "grad_norm": grad_norm,
                    }
                )

            metrics = rollout_metrics(rollout, self.env)
            metrics |= {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            metrics |= {
                # Before the first step old and new policy are one, so this is 0 up to rounding.
                "ratio_deviation": steps[0]["ratio_deviation"],
                "learning_rate": learning_rate,
            }
            self.num_timesteps += rollout.tokens
            self.env.beta = control.next_beta(self.env.beta, metrics["kl"])
            if callback is not None and callback(self, metrics) is False:
                return


def pairs_of_groups(rows: int, group_size: int) -> Int[Tensor, "n 2"]:
    """Every two of the rows of each group, groups of `group_size` rows standing one after another."""
    within = torch.tensor(list(combinations(range(group_size), 2)))
    return (torch.arange(0, rows, group_size)[:, None, None] + within).flatten(0, 1)


def labels_of(scores: Float[Tensor, "n 2"], labels: Literal["soft", "hard"]) -> Float[Tensor, " n"]:
    """The probability that the first of each pair wins; hard ones are 1, 0, or one half where the scores are equal."""
    difference = scores[:, 0] - scores[:, 1]
    return difference.sigmoid() if labels == "soft" else (1 + difference.sign()) / 2
