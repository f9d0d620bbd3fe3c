"""How many floating-point operations are executed, as torch counts them: padding and repeated work included.

Where two contestants are equally fast at the same products, the ratio of these counts is that of their speeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, mm_flop, sdpa_backward_flop_count, sdpa_flop_count


class Operations(TorchDispatchMode):
    """Counts while it is entered, by torch's formulas.

    What torch leaves out on the processor counts as it counts others: fused attention as products with keys and values
    for all of its mask, a linear layer of oneDNN's as a product. torch's own `FlopCounterMode` follows modules too, and
    keeps up to a third more memory for that than a contestant needs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it.
        self.count = 0
        aten = torch.ops.aten
        self._formulas: dict[Any, Callable[..., int]] = {
            **flop_registry,
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
            torch.ops.mkldnn._linear_pointwise: _linear,
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it; in inference mode some arrive whole, and are taken apart."""
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.count += formula(*args, **kwargs, out_val=out)
        return out


def _attention(queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    count: int = sdpa_flop_count(queries.shape, keys.shape, values.shape)
    return count


def _attention_backward(gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    count: int = sdpa_backward_flop_count(gradient.shape, queries.shape, keys.shape, values.shape)
    return count


def _linear(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    count: int = mm_flop(x.shape, weight.t().shape)
    return count
