"""GELU by its tanh approximation, as GPT-2 has it, in less time than torch's own kernel takes.

With (1 + tanh u)/2 = σ(2u) an exponential takes the place of the tanh, and the slope is made in the forward pass, of
what is at hand there, so that the backward pass is one product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SCALE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715
"""gelu(x) = x·σ(v) with v = SCALE·(x + CUBIC·x³): Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2."""

BLOCK = 2**18
"""Numbers that are gone through at a time, so that what lies between stays in the processor's cache."""


def gelu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """GELU of each number, computed in float32; differentiable once."""
    value: Tensor = _GELU.apply(x)  # type: ignore[no-untyped-call]  # torch gives it no types.
    return value


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        numbers = x.reshape(-1)
        value = torch.empty_like(numbers)
        slope = torch.empty_like(numbers) if ctx.needs_input_grad[0] else None
        scale = torch.tensor(SCALE)
        for start in range(0, len(numbers), BLOCK):
            block = slice(start, start + BLOCK)
            part = numbers[block].float()
            inner = torch.addcmul(scale, part, part, value=SCALE * CUBIC).mul_(part)
            if slope is None:
                torch.mul(part, inner.sigmoid_(), out=value[block])
                continue
            gate = inner.sigmoid()
            torch.mul(part, gate, out=value[block])
            # The slope is σ + σ·(1-σ)·x·v', and x·v' is 3v - 2·SCALE·x.
            inner.sub_(part, alpha=2 * SCALE / 3).mul_(gate).addcmul_(inner, gate, value=-1)
            torch.add(gate, inner, alpha=3, out=slope[block])
        if slope is not None:
            ctx.save_for_backward(slope.view(x.shape))
        return value.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        slope: Tensor = ctx.saved_tensors[0]
        return gradient * slope
