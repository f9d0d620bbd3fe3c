"""Linear layers by oneDNN beside torch's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from textenv import linear as library
from textenv import processor
from textenv.linear import FEW, linear, onednn_is_faster, rows_multiplied
from textenv.precision import numerics


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layers() -> Iterator[tuple[nn.Module, int]]:
    """Linear layers of both kinds that get wider and narrower, and how wide what they take is."""
    for taken, given_ in ((3, 5), (24, 8), (1, 1)):
        yield nn.Linear(taken, given_), taken
        yield nn.Linear(taken, given_, bias=False), taken
        yield Conv1D(given_, taken), taken


@pytest.mark.usefixtures("either_library")
@pytest.mark.parametrize("rows", [0, 1, FEW - 1, FEW, 100])
def test_value_and_gradients_are_torchs(rows: int) -> None:
    for module, width in layers():
        x = random(rows, width).requires_grad_()
        inputs = [x, *module.parameters()]
        expected, found = module(x), linear(module, x)
        torch.testing.assert_close(found, expected)
        cotangent = random(*expected.shape, seed=1)
        for ours, torchs in zip(
            torch.autograd.grad(found, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent), strict=True
        ):
            torch.testing.assert_close(ours, torchs, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(linear(module, x), expected)


@pytest.mark.usefixtures("either_library")
def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    module, x = nn.Linear(4, 6), random(20, 4)
    module.weight.requires_grad_(False)
    linear(module, x).sum().backward()
    assert module.weight.grad is None
    assert x.grad is None
    assert module.bias.grad is not None
    assert module.bias.grad.tolist() == [20.0] * 6


@pytest.mark.usefixtures("either_library")
def test_rows_that_do_not_lie_together() -> None:
    module = nn.Linear(6, 4)
    for x in (random(6, 40).T, random(40, 18)[:, ::3], random(1, 6).expand(40, 6)):
        torch.testing.assert_close(linear(module, x), module(x))


def test_both_libraries_multiply_where_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(library, "FEW", FEW)
    monkeypatch.setattr(library, "multiplied", lambda x, weight, bias=None: used.append(len(x)) or x @ weight.t())
    module, x = nn.Linear(4, 4, bias=False), random(FEW, 4)

    def by_onednn(faster: bool, layer: nn.Module = module, numbers: Tensor = x) -> bool:
        monkeypatch.setattr(library, "onednn_is_faster", lambda: faster)
        used.clear()
        with torch.no_grad():
            linear(layer, numbers)
        return bool(used)

    assert by_onednn(True)
    assert not by_onednn(False)
    assert not by_onednn(True, numbers=x[1:])
    with numerics("bfloat16"):
        assert not by_onednn(True)
    assert not by_onednn(True, layer=nn.Linear(4, 4).double(), numbers=x.double())
    assert not by_onednn(True, layer=nn.Identity())
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    assert not by_onednn(True)
    assert len(seen) == 1
    handle.remove()
    assert by_onednn(True)


@given(st.integers(0, 10**6))
def test_rows_are_rounded_up_to_few_numbers(count: int) -> None:
    with numerics("bfloat16"):
        rounded = rows_multiplied(count)
        assert count <= rounded <= max(count + 7, count * 9 / 8)
        assert rows_multiplied(rounded) == rounded


def test_rows_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FEW", FEW)
    counts = (0, 1, 16, 17, 64, 65, 129, 600, 6144, 6145)
    monkeypatch.setattr(library, "onednn_is_faster", lambda: True)
    assert [rows_multiplied(count) for count in counts] == [0, 1, 16, 24, 64, 72, 144, 640, 6144, 6656]
    monkeypatch.setattr(library, "onednn_is_faster", lambda: False)
    assert [rows_multiplied(count) for count in counts] == list(counts)


@pytest.mark.parametrize(
    ("maker", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("aarch64", "DEFAULT", False),
    ],
)
def test_onednn_is_for_amd_with_avx512(
    maker: str, capability: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "maker", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() is (expected and torch.backends.mkl.is_available())
    finally:
        onednn_is_faster.cache_clear()
