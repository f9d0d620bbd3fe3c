"""GELU and its slope beside torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import gelu as reference

from textenv.gelu import BLOCK, gelu


def value_and_slope(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    value = gelu(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_value_and_slope_are_torchs(numbers: list[float]) -> None:
    exact = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    expected = reference(exact, approximate="tanh")
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    for found, wanted in zip(value_and_slope(exact.detach().float()), (expected, slope), strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


def test_by_hand() -> None:
    # At 0 the gate is a half, and so is the slope; far to the right it is 1, far to the left 0.
    value, slope = value_and_slope(torch.tensor([-30.0, 0.0, 30.0]))
    assert value.tolist() == [0.0, 0.0, 30.0]
    assert slope.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("shape", [(0,), (3, 5), (2, BLOCK), (BLOCK + 1,)])
def test_any_shape_in_blocks(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    value, slope = value_and_slope(x)
    assert value.shape == slope.shape == x.shape
    torch.testing.assert_close(value, reference(x, approximate="tanh"))
    assert torch.equal(value, gelu(x))  # Where no slope is made.


def test_rows_that_do_not_lie_together() -> None:
    x = torch.randn((6, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(value_and_slope(x.T)[0], reference(x.T, approximate="tanh"))


def test_bfloat16_is_rounded_once_for_the_value() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    value, slope = value_and_slope(x)
    assert value.dtype == slope.dtype == torch.bfloat16
    assert torch.equal(value, gelu(x.float()).bfloat16())
