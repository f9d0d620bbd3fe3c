"""NLPO, PPO on the likeliest tokens only (Ramamurthy et al. 2023, "RL4LMs", arXiv:2210.01241, section 4)."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from agents.base import Callback, check_range
from agents.ppo import PPO, PPOConfig
from textenv.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class NLPOConfig(PPOConfig):
    """Settings of NLPO."""

    top_p: float = 0.9
    """Probability that the fewest likeliest tokens of the masking policy must hold together; no others are drawn."""
    mask_every: int = 5
    """Iterations after which the masking policy becomes a copy of the policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "mask_every", 1, integer=True)


class NLPO(PPO):
    """PPO whose policy draws only tokens of the nucleus of a masking policy, which is a copy of it from a while ago.

    The mask takes a part of the optimum's support away, so that NLPO's own best policy is below J*: the reference's
    nucleus of 0.9 leaves 0.977 of what could be gained on Exact-v0. There it came to 0.82 in 300,000 tokens where PPO
    came to 0.98, since each mask is the nucleus of a policy that a mask has narrowed already: 0.27 away from π* in
    total variation. The policy that is judged draws by the mask too.

    A step is PPO's among the tokens that the mask leaves: on Exact-v0 it has the cosine 0.999 to the gradient of J of
    the masked policy, the mask held fixed, and 0.28 of its length (`tests/agents/test_gradient_projections.py`).
    """

    name = "nlpo"
    config_class = NLPOConfig
    config: NLPOConfig
    iterations: int = 0
    """Since the agent's birth."""

    def starting_model(self) -> LanguageModel:
        """The reference, with its own nucleus as the first mask."""
        model = super().starting_model()
        # What is not trained stays as it is, so the mask has it in common with the policy and the reference.
        fixed = [weight for weight in model.model.parameters() if not weight.requires_grad]
        shared = {id(tensor): tensor for tensor in (*fixed, *model.model.buffers())}
        mask = copy.deepcopy(model.model, shared).requires_grad_(False)
        return dataclasses.replace(model, sampling=dataclasses.replace(model.sampling, nucleus_of=mask))

    @property
    def mask(self) -> PreTrainedModel:
        """The masking policy."""
        mask = self.language_model.sampling.nucleus_of
        assert mask is not None, "starting_model gave one"
        return mask

    @property
    def _trained_and_copied(self) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
        """Each of the policy's weights that are trained, and the mask's copy of it from a while ago."""
        trained = self.language_model.model.named_parameters()
        return {name: (weight, self.mask.get_parameter(name)) for name, weight in trained if weight.requires_grad}

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on as PPO does; after every `mask_every` iterations the masking policy becomes a copy of the policy.

        Args:
            total_timesteps: as PPO's.
            callback: as PPO's.

        Raises:
            TextenvError: a reward, a loss or a gradient is not finite; the weights before it are kept.
        """

        def after_iteration(agent: NLPO, metrics: dict[str, float]) -> bool:
            self.iterations += 1
            if self.iterations % self.config.mask_every == 0:
                for weight, copied in self._trained_and_copied.values():
                    copied.copy_(weight.detach())
            return callback is None or callback(agent, metrics) is not False

        super().learn(total_timesteps, after_iteration)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the masking policy's own weights among it."""
        mask = {f"mask.{name}": copied for name, (_, copied) in self._trained_and_copied.items()}
        return super().tensors() | mask | {"iterations": torch.tensor(self.iterations)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was, between two copies of the policy."""
        super().restore(tensors)
        self.iterations = int(tensors["iterations"])
        for name, (_, copied) in self._trained_and_copied.items():
            copied.copy_(tensors[f"mask.{name}"])
