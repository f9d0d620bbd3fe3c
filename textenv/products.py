"""What the matrix products of a model are worth: how many threads, and in decoding which numbers."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from textenv.language_model import LanguageModel
from textenv.precision import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPERATIONS_A_THREAD = 2**20
"""Of a matrix product. Two threads with half as many each were 1.1 times as fast as one, with as many 1.3 times, with
four times as many 1.5 times."""

LARGE = 2**18
"""Weights of the largest product from which on tokens are drawn in bfloat16. On a Xeon with AMX a model of SmolLM2's
shape, with three times as many, was decoded 1.8 times as fast as in float32; an embedded one, with a quarter as many,
0.9 to 1.05 times as fast, since there what is rounded on the way costs what the products save."""


def worthwhile_threads(model: PreTrainedModel, rows: int, cores: int) -> int:
    """Threads that share the products of decoding with gain: each gets work that is worth waiting for the others.

    Args:
        model: what is decoded; the products of the embedded models are small, and more threads would mostly wait.
        rows: responses that grow together.
        cores: that may be used; the most threads.
    """
    weights = _weights(model)
    if not weights:
        return cores
    return max(1, min(cores, int(2 * rows * mean(weights) / OPERATIONS_A_THREAD)))


def decoding_precision(language_model: LanguageModel, learning: Precision) -> Precision:
    """The numbers that tokens are drawn in while a model learns in those numbers; float32 where products are small."""
    if learning == "float32":
        return learning
    # Not on average: an adapter has two small products beside each that it adapts.
    return learning if max(_weights(language_model.model), default=0) >= LARGE else "float32"


def _weights(model: PreTrainedModel) -> list[int]:
    """Of each linear layer of the trunk."""
    return [layer.weight.numel() for layer in model.base_model.modules() if isinstance(layer, (nn.Linear, Conv1D))]
