"""How a rater sees responses: not to their end, not all of it alike, not every side of them.

What is perceived are attributes. A response of L tokens is known by the attributes a(y≤t) of its first t tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from reward_models.raters.part import Part, Values, column

Prefixes = Float[np.ndarray, "n k T+1 A"]
"""Attributes of the first 0, 1, … T tokens of k responses in each of n questions."""


@dataclass(frozen=True)
class LimitedReading(Part):
    """Reads the first m tokens: a(y) becomes a(y≤m).

    Evaluators with little time and attention (Casper et al. 2023, "Open problems", section 3.1); the cut is our model.
    """

    key = "reads"
    low = 0.0
    value: Values = math.inf

    def __call__(self, lengths: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "n k"]:
        """How many tokens are read of responses of so many."""
        read: Int[np.ndarray, "n k"] = np.minimum(lengths, column(self.value)).astype(np.int64)
        return read


@dataclass(frozen=True)
class Myopia(Part):
    """Remembers what it read last: a(y) becomes Σ_t γ^(L−t)·[a(y≤t) − a(y<t)], with γ in [0, 1].

    The myopic teacher of Lee et al. 2021 ("B-Pref"), whose rewards are here the increments of the truth.
    """

    key = "discount"
    low, high = 0.0, 1.0
    value: Values = 1.0

    def __call__(self, prefixes: Prefixes, read: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "n k A"]:
        """What is remembered of the tokens that were read, added to what there is before the first one."""
        n, steps = len(read), prefixes.shape[2]
        # γ^0, γ^1, …, behind a 0 for what is not read.
        powers = np.ones((n, steps + 1))
        powers[:, 0] = 0
        np.cumprod(np.repeat(np.reshape(self.value, (-1, 1)), steps - 1, axis=1), axis=1, out=powers[:, 2:])
        age = read[..., None] - np.arange(steps)
        weight = np.take_along_axis(powers[:, None], np.maximum(age + 1, 0), axis=2)
        weight[..., 0] = 1
        # Σ_t w_t·(a_t − a_(t−1)) as a sum over the a_t themselves, which are many and stay where they are.
        weight[..., :-1] -= weight[..., 1:].copy()
        together: Float[np.ndarray, "n k A"] = np.matmul(weight.astype(prefixes.dtype)[:, :, None], prefixes)[:, :, 0]
        return together


@dataclass(frozen=True)
class Blindness(Part):
    """Misses a share b_j in [0, 1] of attribute j: a_j becomes (1 − b_j)·a_j; 1 is blind to it.

    Partial observability in Casper et al. 2023 ("Open problems", section 3.1).
    """

    key = "blindness"
    low, high = 0.0, 1.0
    of_attributes = True
    value: Values = 0.0

    def __call__(self, attributes: Float[np.ndarray, "n k A"]) -> Float[np.ndarray, "n k A"]:
        """The attributes as they are seen."""
        perceived: Float[np.ndarray, "n k A"] = attributes * (1 - np.asarray(self.value)[..., None, :])
        return perceived


@dataclass(frozen=True)
class Halo(Part):
    """Attributes colour the others: a_j becomes (1 − Σ_l h_l)·a_j + Σ_l h_l·a_l, with h ≥ 0 and Σ h ≤ 1.

    The halo effect (Thorndike 1920) as the mixture of an attribute with a general impression, as in Cooper 1981;
    the impression is here that of the attributes l with h_l > 0.
    """

    key = "halo"
    low, high = 0.0, 1.0
    of_attributes = True
    value: Values = 0.0

    def __call__(self, attributes: Float[np.ndarray, "n k A"]) -> Float[np.ndarray, "n k A"]:
        """The attributes as they are seen."""
        share = np.asarray(self.value)[..., None, :]
        impression = (share * attributes).sum(axis=-1, keepdims=True)
        perceived: Float[np.ndarray, "n k A"] = (1 - share.sum(axis=-1, keepdims=True)) * attributes + impression
        return perceived
