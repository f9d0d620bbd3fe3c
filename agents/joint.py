"""A joint loss of imitation and ranking, on comparisons (Xu et al. 2024, "CPO", arXiv:2401.08417)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Callback, check_range
from agents.comparisons import Comparisons, preferences_of
from agents.functional.preference_losses import imitation_loss, preference_loss
from agents.language_agent import AgentConfig, LanguageModelAgent
from agents.passes import Passes
from agents.policy import Actor
from textenv.errors import UsageError
from textenv.preferences import Preferences
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class JointConfig(AgentConfig):
    """Settings of the joint loss."""

    batch_size: int = 32
    """Comparisons of an optimiser step; a pass over all of them ends with those that are left."""
    ranking_coef: float = 1.0
    """Weight of the ranking loss beside the cross-entropy of what was preferred."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", 1, integer=True)
        check_range(self, "ranking_coef", 0, low_included=False)


class Joint(LanguageModelAgent):
    """Imitates what was preferred, and ranks it above what was not: without a reward model, and without the reference.

    The ranking loss is DPO's with a reference that finds all responses equally likely; β is the environment's. What
    keeps the policy at fluent text is the cross-entropy alone, so it does not lead to the optimum of J.
    """

    name = "joint"
    config_class = JointConfig
    config: JointConfig
    policy: Actor
    learns_from = "preferences"

    def __init__(self, env: TextVectorEnv, config: JointConfig, seed: int, data: Preferences | None = None) -> None:
        super().__init__(env, config, seed, data)
        if env.beta <= 0:
            raise UsageError("joint ranks by beta times log-probabilities, and beta is 0; expected is a beta above 0")
        self.data = Comparisons.of(data, env, self.name)
        self.passes = Passes(len(self.data.label), config.batch_size)

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on up to the first optimiser step that ends at or beyond `total_timesteps` response tokens.

        Args:
            total_timesteps: tokens of both responses of each comparison, again in each pass over them, counted from
                the agent's birth, also after `load`. The learning rate reaches 0 there, so a run that is
                continued must be given the same number.
            callback: called after each step with the agent and its metrics; False stops.

        Raises:
            TextenvError: a loss or a gradient is not finite; the weights before it are kept.
        """
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            chosen = self.passes.next(self.generators["shuffling"])

            pairs = self.data.pairs.groups(chosen)
            logprobs, lengths = self.policy(pairs).sum(dim=1).view(-1, 2), pairs.lengths.view(-1, 2)
            label = self.data.label[chosen]
            cross_entropy = imitation_loss(logprobs, lengths, label)
            ranking = preference_loss(logprobs, torch.zeros_like(logprobs), label, self.env.beta)
            grad_norm = self.step(
                {"cross-entropy": cross_entropy, "ranking loss": self.config.ranking_coef * ranking.loss}
            )

            metrics = {
                "cross_entropy": cross_entropy.item(),
                "ranking_loss": ranking.loss.item(),
                "accuracy": ranking.accuracy.item(),
                "reward_margin": ranking.margin.item(),
                "logprob_chosen": ranking.chosen_logprob.item(),
                "beta": self.env.beta,
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
            }
            self.num_timesteps += int(pairs.mask.sum())
            if callback is not None and callback(self, metrics) is False:
                return

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the comparisons among it."""
        return super().tensors() | self.data.tensors() | {"order": self.passes.left}

    @classmethod
    def data_from(cls, tensors: dict[str, Tensor]) -> Preferences:
        """The comparisons of a checkpoint."""
        return preferences_of(tensors)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was, in the midst of a pass over the comparisons."""
        super().restore(tensors)
        self.passes.left = tensors["order"]
