"""Passes over a fixed number of examples, each in an order of its own, a batch at a time."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


class Passes:
    """Every example comes once in a pass; a pass ends with a batch of those that are left.

    Args:
        count: examples.
        batch_size: of each batch but a pass's last.
    """

    def __init__(self, count: int, batch_size: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.left: Int[Tensor, " n"] = torch.empty(0, dtype=torch.long)
        """What is still to come of the current pass; all that a checkpoint needs."""

    def next(self, generator: torch.Generator) -> Int[Tensor, " b"]:
        """The next batch; the generator draws the order of a new pass."""
        if not len(self.left):
            self.left = torch.randperm(self.count, generator=generator)
        batch, self.left = self.left[: self.batch_size], self.left[self.batch_size :]
        return batch
