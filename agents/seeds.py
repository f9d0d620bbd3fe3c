"""One seed, many generators: each use draws from a generator of its own name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Seeds:
    """Independent generators derived from a run's seed by name.

    What a generator gives depends on the seed and its name alone, not on who else has drawn. So two
    runs with equal seeds see equal prompts, raters and evaluation noise, whichever agent they train.
    """

    seed: int

    def integer(self, name: str) -> int:
        """A seed for somebody who makes generators himself; below 2³¹."""
        return int(self._sequence(name).generate_state(1)[0]) & 0x7FFFFFFF

    def numpy(self, name: str) -> np.random.Generator:
        """A NumPy generator at its beginning."""
        return np.random.default_rng(self._sequence(name))

    def torch(self, name: str) -> torch.Generator:
        """A torch generator at its beginning."""
        return torch.Generator().manual_seed(int(self._sequence(name).generate_state(1, np.uint64)[0]))

    def _sequence(self, name: str) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=tuple(name.encode()))
