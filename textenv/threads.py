"""How many processor threads the products of a model are worth."""

from __future__ import annotations

from statistics import mean

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

OPERATIONS_A_THREAD = 2**20
"""Of a matrix product. Two threads with half as many each were 1.1 times as fast as one, with as many 1.3 times, with
four times as many 1.5 times."""


def worthwhile_threads(model: PreTrainedModel, rows: int, cores: int) -> int:
    """Threads that share the products of decoding with gain: each gets work that is worth waiting for the others.

    Args:
        model: what is decoded; the products of the embedded models are small, and more threads would mostly wait.
        rows: responses that grow together.
        cores: that may be used; the most threads.
    """
    weights = [layer.weight.numel() for layer in model.base_model.modules() if isinstance(layer, (nn.Linear, Conv1D))]
    if not weights:
        return cores
    return max(1, min(cores, int(2 * rows * mean(weights) / OPERATIONS_A_THREAD)))
