"""The one minimiser of the raters' models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

Point = Float[np.ndarray, " d"]


def least(
    objective: Callable[[Point], tuple[float, Point]], start: Point, bound: float | None = None, iterations: int = 500
) -> Point:
    """Where a smooth function is least, near `start`, by L-BFGS-B (Byrd et al. 1995).

    Args:
        objective: its value and gradient.
        start: the first point.
        bound: the largest size of any coordinate; None is no bound.
        iterations: stops at the latest.
    """
    bounds = None if bound is None else [(-bound, bound)] * len(start)
    # scipy's overloads do not know arrays whose number of axes is not part of their type.
    arguments: Any = {
        "method": "L-BFGS-B",
        "bounds": bounds,
        "options": {"maxiter": iterations, "maxfun": 3 * iterations},
    }
    fitted: Any = minimize(objective, np.asarray(start, dtype=np.float64), jac=True, **arguments)
    point: Point = fitted.x
    return point
