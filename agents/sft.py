"""Supervised fine-tuning of language models on demonstrations, the first stage of RLHF (arXiv:2203.02155, 3.5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from agents.base import Callback, check_range
from agents.comparisons import check_readable, response_tensors, responses_of
from agents.functional.masked import masked_mean
from agents.language_agent import AgentConfig, LanguageModelAgent
from agents.passes import Passes
from agents.policy import Actor
from textenv.demonstrations import Demonstrations
from textenv.errors import UsageError
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class SFTConfig(AgentConfig):
    """Settings of supervised fine-tuning."""

    batch_size: int = 32
    """Demonstrations of an optimiser step; a pass over all of them ends with those that are left."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", 1, integer=True)


class SFT(LanguageModelAgent):
    """Learns to say what was demonstrated, by cross-entropy, from no reward and with no KL to the reference.

    Its steps lead to the demonstrations' distribution, and have nothing to do with the gradient of J.
    """

    name = "sft"
    config_class = SFTConfig
    config: SFTConfig
    policy: Actor
    learns_from = "demonstrations"

    def __init__(self, env: TextVectorEnv, config: SFTConfig, seed: int, data: Demonstrations | None = None) -> None:
        super().__init__(env, config, seed, data)
        if not isinstance(data, Demonstrations) or not len(data):
            found = "none" if isinstance(data, Demonstrations) else f"a {type(data).__name__}"
            raise UsageError(
                f"sft learns from demonstrations, got {found}; give textenv.demonstrations.Demonstrations as `data`"
            )
        check_readable(data.responses, env, "demonstration")
        self.responses = data.responses
        self.passes = Passes(len(data), config.batch_size)

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on up to the first optimiser step that ends at or beyond `total_timesteps` response tokens.

        Args:
            total_timesteps: tokens of the demonstrations, again in each pass over them, counted from the agent's
                birth, also after `load`. The learning rate reaches 0 there, so a run that is continued must be
                given the same number.
            callback: called after each step with the agent and its metrics; False stops.

        Raises:
            TextenvError: a loss or a gradient is not finite; the weights before it are kept.
        """
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            responses = self.responses.groups(self.passes.next(self.generators["shuffling"]))

            loss = masked_mean(-self.policy(responses), responses.mask)
            grad_norm = self.step({"cross-entropy": loss})

            metrics = {
                "cross_entropy": loss.item(),
                "perplexity": loss.detach().exp().item(),
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
            }
            self.num_timesteps += int(responses.mask.sum())
            if callback is not None and callback(self, metrics) is False:
                return

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the demonstrations among it."""
        return super().tensors() | response_tensors(self.responses) | {"order": self.passes.left}

    @classmethod
    def data_from(cls, tensors: dict[str, Tensor]) -> Demonstrations:
        """The demonstrations of a checkpoint."""
        return Demonstrations(responses_of(tensors))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was, in the midst of a pass over the demonstrations."""
        super().restore(tensors)
        self.passes.left = tensors["order"]
