"""Means over the tokens that a mask covers, and what is made from them."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Tokens: TypeAlias = Float[Tensor, "B T"]
Mask: TypeAlias = Bool[Tensor, "B T"]
Scalar: TypeAlias = Float[Tensor, ""]


def check_shapes(mask: Tensor, **tensors: Tensor) -> None:
    """Refuses a mask that is not boolean (B, T), and tensors of another shape than the mask's.

    Raises:
        ValueError: names the tensor and both shapes.
    """
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (B, T), got {mask.dtype} {tuple(mask.shape)}")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, the mask {tuple(mask.shape)}")


def masked_mean(values: Tokens, mask: Mask) -> Scalar:
    """Averages over the tokens that the mask covers; 0 where it covers none."""
    check_shapes(mask, values=values)
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def mean_of_responses(values: Tokens, mask: Mask) -> Scalar:
    """Averages over the tokens of each response, then over the responses; one without tokens counts as 0."""
    check_shapes(mask, values=values)
    return (values.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def sum_of_responses(values: Tokens, mask: Mask) -> Scalar:
    """Sums over the tokens of each response and averages over the responses: each token weighs the same."""
    check_shapes(mask, values=values)
    return values.masked_fill(~mask, 0.0).sum(dim=1).mean()


def masked_variance(values: Tokens, mask: Mask) -> Scalar:
    """The variance (divided by n) over the tokens that the mask covers."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def masked_whiten(values: Tokens, mask: Mask, *, shift_mean: bool = True) -> Tokens:
    """Scales the covered tokens to variance 1, and to mean 0 unless the mean is to be kept."""
    mean = masked_mean(values, mask)
    white = (values - mean) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return (white if shift_mean else white + mean).masked_fill(~mask, 0.0)
