"""How beta, the weight of the KL term, moves from one iteration to the next.

Only for environments that pay the whole KL term (`kl="full"`): with `kl="reference"` beta weighs
only a part of it, and the agents refuse that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from textenv.errors import UsageError


class KLControl(Protocol):
    """A rule for the next iteration's beta; beta itself is the environment's."""

    def next_beta(self, beta: float, kl: float) -> float:
        """The beta that follows an iteration with this beta and this mean KL (nats an episode)."""
        ...


@dataclass(frozen=True)
class FixedBeta:
    """Leaves beta as it is."""

    def next_beta(self, beta: float, kl: float) -> float:
        """The same beta."""
        return beta


@dataclass(frozen=True)
class AdaptiveBeta:
    """Steers the KL towards a target (Ziegler et al. 2019, arXiv:1909.08593, section 2.2)."""

    target: float
    """KL aimed at, in nats an episode."""

    def next_beta(self, beta: float, kl: float) -> float:
        """beta (1 + 0.1 e) with e = clip((kl - target) / target, -0.2, 0.2)."""
        error = min(max((kl - self.target) / self.target, -0.2), 0.2)
        return beta * (1 + 0.1 * error)


def kl_control(target: float | None, beta: float) -> KLControl:
    """The rule for a KL target; without one, beta stays fixed.

    Args:
        target: KL aimed at, in nats an episode, or None.
        beta: the beta to start from.

    Raises:
        UsageError: a target was given with a beta that cannot move.
    """
    if target is None:
        return FixedBeta()
    if beta <= 0:
        raise UsageError(f"kl_target={target:g} scales beta, and beta={beta:g} stays 0; start from a positive beta")
    return AdaptiveBeta(target)
