"""What agents with a critic have beside the others: its settings, its optimiser group and where it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agents.base import check_range
from agents.functional.advantages import gae
from agents.functional.masked import masked_mean
from agents.policy import ActorCritic, trained
from agents.rollout import RolloutConfig


@dataclass(frozen=True)
class ActorCriticConfig(RolloutConfig):
    """The settings that every actor-critic has."""

    value_learning_rate: float = 5e-3
    """The learning rate of the value head, which begins at nothing."""
    gamma: float = 1.0
    """Discount of later rewards; 1 optimises J itself."""
    gae_lambda: float = 0.95
    """GAE's lambda: 0 trusts the values, 1 the returns."""
    vf_coef: float = 0.1
    """Weight of the value loss."""
    whiten_rewards: bool = False
    """Scale a rollout's token rewards to variance 1, keeping their mean."""
    separate_value: bool = False
    """Give the value a trunk of its own, at twice the cost of an update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "value_learning_rate", 0, low_included=False)
        for field in ("gamma", "gae_lambda"):
            check_range(self, field, 0, 1)
        check_range(self, "vf_coef", 0)


def head_apart(policy: ActorCritic, config: ActorCriticConfig) -> list[dict[str, Any]]:
    """The trunks' parameters and the value head's, which begins at nothing and so takes longer steps."""
    head = list(policy.value_head.parameters())
    trunks = trained(weight for name, weight in policy.named_parameters() if not name.startswith("value_head."))
    return [
        {"params": trunks, "lr": config.learning_rate},
        {"params": head, "lr": config.value_learning_rate},
    ]


def begin_values(policy: ActorCritic, rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], gamma: float) -> None:
    """Sets the value of every state to the mean reward still to come; to be called before the first update.

    From 0 the head would need hundreds of steps to get there, and till then GAE would credit the
    whole reward to the tokens near the end.
    """
    returns = gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0).returns
    torch.nn.init.constant_(policy.value_head.bias, float(masked_mean(returns, mask)))
