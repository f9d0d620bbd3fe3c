"""In which numbers linear layers multiply."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from textenv import processor
from textenv.precision import full_precision, native, numerics, rounded


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512_bf16 sse", "bfloat16"),
        ("fpu amx_bf16", "bfloat16"),
        ("fpu avx2 avx512f", "float32"),
        (None, "float32"),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(
    flags: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "described", lambda: {} if flags is None else {"flags": flags})
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert native() == expected
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "AVX2")
    assert native() == "float32"


def test_what_products_take_is_rounded_where_they_multiply_in_bfloat16_only() -> None:
    x = torch.tensor([[1.0, 1 + 2**-12]])
    assert rounded(x) is x
    with numerics("float32"):
        assert rounded(x) is x
    with numerics("bfloat16"):
        assert rounded(x).tolist() == [[1.0, 1.0]]
        assert torch.equal(linear(rounded(x), x), linear(x, x))
        with full_precision():
            assert rounded(x) is x
