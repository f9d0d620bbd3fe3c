"""DPO for language models (Rafailov et al. 2023, arXiv:2305.18290): a policy from comparisons alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from agents.base import Callback, check_range
from agents.comparisons import Comparisons, check_pair_loss, preferences_of
from agents.finite import require_finite
from agents.functional.preference_losses import PairLoss, preference_loss
from agents.language_agent import AgentConfig, LanguageModelAgent
from agents.passes import Passes
from agents.policy import Actor
from textenv.errors import UsageError
from textenv.precision import numerics
from textenv.preferences import Preferences
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class DPOConfig(AgentConfig):
    """Settings of DPO."""

    batch_size: int = 32
    """Comparisons of an optimiser step; a pass over all of them ends with those that are left."""
    loss: PairLoss = "sigmoid"
    """Published as DPO is sigmoid; ipo and hinge stop at a margin, and robust allows for labels turned round."""
    label_smoothing: float = 0.0
    """Share of the labels that are held to be wrong: with sigmoid this is cDPO, and robust needs it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", 1, integer=True)
        check_pair_loss(self)


class DPO(LanguageModelAgent):
    """Direct preference optimisation on the rater's comparisons, without a reward model.

    The policy's implicit reward is β·log(π/π_ref), with the environment's β. A rater who prefers with the
    probability σ(κ·(u₁ − u₂)) leads to π ∝ π_ref·exp(κ·u/β): to the optimum for utility u at β/κ. That is for the
    sigmoid loss and, where labels are turned round as often as it is told, for robust; the others lead elsewhere, as
    `agents.functional.preference_losses` says.
    """

    name = "dpo"
    config_class = DPOConfig
    config: DPOConfig
    policy: Actor
    learns_from = "preferences"

    def __init__(self, env: TextVectorEnv, config: DPOConfig, seed: int, data: Preferences | None = None) -> None:
        super().__init__(env, config, seed, data)
        self.data = Comparisons.of(data, env, self.name)
        if env.beta <= 0:
            raise UsageError("dpo stays near the reference by beta, which is 0; expected is a beta above 0")
        self.reference_logprobs: Tensor | None = None
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
        config, data = self.config, self.data
        reference_logprobs = self.reference_logprobs
        if reference_logprobs is None:
            with numerics(self.precision):  # As the policy's, or what rounding makes of the same model would count.
                reference_logprobs = self.env.reference.logprobs(data.pairs).sum(dim=1).view(-1, 2)
            require_finite({"reference's log-probability": reference_logprobs})
            self.reference_logprobs = reference_logprobs
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            chosen = self.passes.next(self.generators["shuffling"])

            pairs = data.pairs.groups(chosen)
            logprobs = self.policy(pairs).sum(dim=1).view(-1, 2)
            result = preference_loss(
                logprobs,
                reference_logprobs[chosen],
                data.label[chosen],
                self.env.beta,
                config.loss,
                config.label_smoothing,
            )
            grad_norm = self.step({"loss": result.loss})

            metrics = {
                "loss": result.loss.item(),
                "accuracy": result.accuracy.item(),
                "reward_margin": result.margin.item(),
                "reward_chosen": result.chosen_reward.item(),
                "reward_rejected": result.rejected_reward.item(),
                "logprob_chosen": result.chosen_logprob.item(),
                "beta": self.env.beta,
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
            }
            self.num_timesteps += int(pairs.mask.sum())
            if callback is not None and callback(self, metrics) is False:
                return

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the comparisons among it."""
        known = {} if self.reference_logprobs is None else {"reference_logprobs": self.reference_logprobs}
        return super().tensors() | self.data.tensors() | known | {"order": self.passes.left}

    @classmethod
    def data_from(cls, tensors: dict[str, Tensor]) -> Preferences:
        """The comparisons of a checkpoint."""
        return preferences_of(tensors)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was, in the midst of a pass over the comparisons."""
        super().restore(tensors)
        self.reference_logprobs = tensors.get("reference_logprobs")
        self.passes.left = tensors["order"]
