"""How a learning rate goes over a run."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

WARMUP_BEGINS = 0.1
"""What the warm-up begins at: at 0 the first iteration's responses would be wasted."""

Schedule: TypeAlias = Literal["linear", "constant", "cosine"]
"""Names of what a learning rate does after its warm-up."""


def learning_rate_factor(progress: float, schedule: Schedule, warmup: float) -> float:
    """What a learning rate is multiplied with: up on a line in the warm-up, then down to 0 or not.

    Down is a line, or half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without restarts).

    Args:
        progress: share of the run that is done, in [0, 1].
        schedule: what comes after the warm-up.
        warmup: share of the run that the warm-up takes, in [0, 1).

    Returns:
        A number in [0, 1].
    """
    if progress < warmup:
        return WARMUP_BEGINS + (1 - WARMUP_BEGINS) * progress / warmup
    rest = (progress - warmup) / (1 - warmup)
    if schedule == "constant":
        return 1.0
    return 1 - rest if schedule == "linear" else (1 + math.cos(math.pi * rest)) / 2
