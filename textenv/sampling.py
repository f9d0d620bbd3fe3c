"""How tokens are drawn from a language model's logits: a part of the policy, since it changes what it says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from textenv.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Sampling:
    """Temperature, then the k likeliest tokens, then the nucleus (Holtzman et al. 2020, arXiv:1904.09751).

    Log-probabilities are always those of the distribution that is left: what is drawn is what is paid for, learned
    from and judged. The reference draws neutrally, so its support holds that of every policy.
    """

    temperature: float = 1.0
    """Divides the logits."""
    top_k: int | None = None
    """Tokens that are kept, and those as likely as the last of them; None keeps all."""
    top_p: float = 1.0
    """Probability that the fewest likeliest tokens must hold together; the others are never drawn."""
    nucleus_of: PreTrainedModel | None = None
    """The model whose likeliest tokens they are; None is the policy's own."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"temperature is {self.temperature}, expected a number in (0, inf)")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}, expected 1 or more, or none to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}, expected a number in (0, 1]")

    @property
    def restricts(self) -> bool:
        """Whether some tokens may never be drawn."""
        return self.top_k is not None or self.top_p < 1

    def allowed(self, logits: Float[Tensor, "n V"]) -> Bool[Tensor, "n V"] | None:
        """Which tokens may be drawn; None where all of them may.

        Args:
            logits: of the policy, or of the model that `nucleus_of` names.
        """
        if not self.restricts:
            return None
        ordered, order = (logits.float() / self.temperature).sort(dim=-1, descending=True)
        kept = torch.ones_like(ordered, dtype=torch.bool)
        if self.top_k is not None and self.top_k < kept.shape[1]:
            kept = ordered >= ordered[:, self.top_k - 1, None]
        if self.top_p < 1:
            probabilities = ordered.masked_fill(~kept, -torch.inf).softmax(dim=-1)
            # A token stays while those before it do not hold enough: so the likeliest one always does.
            kept = kept & (probabilities.cumsum(dim=-1) - probabilities < self.top_p)
        return torch.zeros_like(kept).scatter(1, order, kept)

    def scaled(self, logits: Float[Tensor, "n V"], allowed: Bool[Tensor, "n V"] | None) -> Float[Tensor, "n V"]:
        """Logits of the distribution that is drawn from; differentiable.

        Args:
            logits: of the policy.
            allowed: the tokens that may be drawn, which no gradient moves; None is all.
        """
        if self.temperature != 1:
            logits = logits.float() / self.temperature
        return logits if allowed is None else logits.float().masked_fill(~allowed, -torch.inf)


NEUTRAL = Sampling()
"""Tokens are drawn as the model says."""
