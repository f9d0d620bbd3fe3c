"""What a part of a rater is: one parameter, and one formula that it enters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

Values = Float[np.ndarray, "*shape"] | float
"""One number for all questions, or one a question."""


@dataclass(frozen=True)
class Part:
    """A part of a rater, made for n questions; each subclass's call is its formula.

    The default value is the neutral one, with which the part changes nothing.
    """

    key: ClassVar[str]
    """Its name in files and in `Rater.traits`."""
    low: ClassVar[float] = -math.inf
    """Least value."""
    high: ClassVar[float] = math.inf
    """Largest value; infinity itself is a value only where it is the neutral one."""
    of_attributes: ClassVar[bool] = False
    """Whether there is a value for each attribute of the task: shape (n, A), or (A,) for all questions."""

    value: Values
    """The parameter: a number, or one for each of n questions."""

    @classmethod
    def neutral(cls) -> float:
        """The value that changes nothing."""
        return float(cls().value)  # type: ignore[call-arg]  # Each part has a default.


def column(value: Values) -> Float[np.ndarray, ...]:
    """Values of n questions beside what has more axes: shape (n, 1), or (1,) of a single number."""
    return np.asarray(value, dtype=float)[..., None]
