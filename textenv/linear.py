"""Linear layers by the library whose float32 products are fastest here.

torch multiplies float32 by Intel's MKL, which uses AVX-512 on Intel's processors only; on AMD's it keeps to AVX2. There
oneDNN, which torch comes with too and multiplies bfloat16 by, is faster. It makes a program for each
number of rows that it has not seen lately, in the time of a small product, so numbers of rows that change from pass to
pass are rounded up.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from textenv import processor

FEW = 16
"""Rows that MKL multiplies as fast, since it has less to prepare."""


@cache
def onednn_is_faster() -> bool:
    """Whether torch would multiply float32 by MKL without the AVX-512 that the processor has."""
    return (
        processor.maker() == "AuthenticAMD"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )


def rows_multiplied(count: int) -> int:
    """So many rows, or up to an eighth more so as to be one of few numbers where oneDNN multiplies."""
    if count <= FEW or not (onednn_is_faster() or torch.is_autocast_enabled("cpu")):
        return count
    step = 1 << max(3, (count - 1).bit_length() - 4)
    return -(-count // step) * step


def filled(x: Shaped[Tensor, "n ..."], count: int) -> Shaped[Tensor, "m ..."]:
    """`count` rows, with zeros after those there are."""
    missing = count - len(x)
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def linear(module: nn.Module, x: Float[Tensor, "n I"]) -> Float[Tensor, "n O"]:
    """What a module makes of x; a linear layer in float32 by the faster library, differentiable once.

    Args:
        module: any; one that is more than a linear layer, as with an adapter or hooks, goes its own way.
        x: packed tokens.
    """
    weight = _weight(module) if onednn_is_faster() else None
    if weight is None or len(x) < FEW or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        output: Tensor = module(x)
        return output
    bias: Any = module.bias
    if not torch.is_grad_enabled():
        return multiplied(x, weight, bias)
    output = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]  # torch gives it no types.
    return output


def _weight(module: Any) -> Float[Tensor, "O I"] | None:
    """Of a linear layer that is nothing more."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return None
    if type(module) is nn.Linear:
        return module.weight
    transposed: Tensor | None = module.weight.t() if type(module) is Conv1D else None
    return transposed


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiplied(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            multiplied(gradient, weight.t()) if of_x else None,
            outer(gradient, x) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def multiplied(
    x: Float[Tensor, "n I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "n O"]:
    """x·weightᵀ + bias in float32 by the faster library; no gradient where that is oneDNN."""
    if not onednn_is_faster() or len(x) < FEW:
        return functional.linear(x, weight, bias)
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return output


def outer(gradient: Float[Tensor, "n O"], x: Float[Tensor, "n I"]) -> Float[Tensor, "O I"]:
    """gradientᵀ·x likewise. oneDNN copies what is multiplied from the left to turn it: the narrower one."""
    if gradient.shape[1] <= x.shape[1]:
        return multiplied(gradient.t(), x.t())
    return multiplied(x.t(), gradient.t()).t()
