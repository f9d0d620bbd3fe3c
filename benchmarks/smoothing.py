"""Means over neighbouring iterations: a single one is of few prompts, and jumps."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Values: TypeAlias = Float[np.ndarray, " n"]


def smoothing_window(count: int) -> int:
    """Iterations in the moving average: a tenth of the run, or five of a short one; odd, so that it is centred."""
    return 2 * max(count // 20, min(2, count // 4)) + 1


def moving_average(values: Values, window: int) -> Values:
    """Centred mean over `window` (odd) neighbours; near both ends over those of them that there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    mean: Values = (total[stop] - total[start]) / (stop - start)
    return mean
