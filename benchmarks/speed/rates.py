"""The machine's own rates: matrix products at the shapes of a model's layers, and reading its weights.

Products are those of the faster library that torch has.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from benchmarks.speed.flops import Sizes, Tokens, Work, forward, triangle
from benchmarks.speed.worker import Clock
from benchmarks.speed.workload import Workload
from textenv.linear import multiplied, outer
from textenv.responses import Responses

FLOPS_AT_ONCE = 4e9
BYTES_AT_ONCE = 4e9
FLOAT = 4
"""Bytes of a number."""


def weights(model: PreTrainedModel) -> list[Float[Tensor, "in out"]]:
    """The matrices that a decoder multiplies with, the head last."""
    found = []
    for module in model.modules():
        if isinstance(module, Conv1D):
            found.append(module.weight.detach())
        elif isinstance(module, nn.Linear):
            found.append(module.weight.detach().t())
    return found


def sizes_of(model: PreTrainedModel) -> Sizes:
    """What a model's operations are counted from."""
    config: Any = model.config
    *layers, head = (matrix.numel() for matrix in weights(model))
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads, key_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    width, keys_and_values = heads * head_width, 2 * config.hidden_size * key_heads * head_width
    last = sum(layers) // config.num_hidden_layers - keys_and_values
    return Sizes(sum(layers), config.num_hidden_layers * width, head, last, width)


def decoding_work(model: PreTrainedModel, responses: Responses) -> Work:
    """What sampling needs: prompts once; each step reads all weights, and the keys and values of the rows that run."""
    sizes = sizes_of(model)
    prompts, own = responses.prompts.mask.sum(dim=1), responses.lengths - 1
    theirs = prompts.repeat_interleave(responses.group_size)
    own_pairs = int((own * (own + 1) // 2 + own * theirs).sum())
    tokens = Tokens(
        number=int(prompts.sum() + own.sum()),
        pairs=sum(map(triangle, prompts.tolist())) + own_pairs,
        states=len(prompts) + int(own.sum()),
        state_pairs=int(prompts.sum()) + own_pairs,
    )
    steps = responses.ids.shape[1]
    read = steps * (sizes.linear + sizes.head) + 2 * sizes.attention * tokens.pairs
    return Work(forward(sizes, tokens), FLOAT * read)


def rollout_products(workload: Workload, clock: Clock) -> None:
    """Products of one row an episode, as a step of decoding has them."""
    _multiply(workload, clock, workload.shape.episodes, backward=False)


def update_products(workload: Workload, clock: Clock) -> None:
    """Products of all tokens of a minibatch, forward and backward."""
    shape = workload.shape
    rows = shape.episodes * (shape.prompt + shape.response) // shape.minibatches
    _multiply(workload, clock, rows, backward=True)


def _multiply(workload: Workload, clock: Clock, rows: int, *, backward: bool) -> None:
    matrices = weights(workload.language_model.model)
    inputs = {width: torch.randn(rows, width) for width in {size for matrix in matrices for size in matrix.shape}}
    flops = sum(2 * rows * matrix.numel() for matrix in matrices) * (3 if backward else 1)
    sweeps = max(1, int(FLOPS_AT_ONCE / flops))
    while True:
        for _ in range(sweeps):
            for matrix in matrices:
                x, gradient = (inputs[size] for size in matrix.shape)
                multiplied(x, matrix.t())
                if backward:
                    multiplied(gradient, matrix)
                    outer(gradient, x)
        clock.lap(work=partial(Work, sweeps * flops))


def memory(workload: Workload, clock: Clock) -> None:
    """Reads as many numbers as the model has weights, again and again."""
    numbers = torch.randn(sum(matrix.numel() for matrix in weights(workload.language_model.model)))
    size = numbers.numel() * FLOAT
    sweeps = max(1, int(BYTES_AT_ONCE / size))
    while True:
        for _ in range(sweeps):
            numbers.sum()
        clock.lap(work=partial(Work, 0, sweeps * size))
