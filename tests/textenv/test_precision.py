"""In which numbers linear layers multiply."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import linear

from textenv import precision
from textenv.precision import full_precision, native, numerics, rounded


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("processor: 0\nflags : fpu avx2 avx512_bf16 sse\n", "bfloat16"),
        ("flags: fpu amx_bf16\n", "bfloat16"),
        ("flags: fpu avx2 avx512f\n", "float32"),
        ("Features: asimd bf16\n", "float32"),
        (None, "float32"),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(
    described: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if described is not None:
        file.write_text(described, encoding="utf-8")
    monkeypatch.setattr(precision, "Path", lambda _: file)
    native.cache_clear()
    try:
        assert native() == expected
    finally:
        native.cache_clear()


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
