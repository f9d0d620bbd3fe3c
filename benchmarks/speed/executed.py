"""How many floating-point operations are executed, as torch counts them: padding and repeated work included.

Where two contestants spend their time in the same products, the ratio of these counts bounds how many times
as fast one can be as the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def counter() -> FlopCounterMode:
    """Counts while it is entered; `get_total_flops` tells.

    Fused attention on the processor, which torch leaves out, counts as torch counts other fused attention: products
    with keys and values for all of its mask.
    """
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
        },
    )


def _forward(queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    count: int = sdpa_flop_count(queries, keys, values)
    return count


def _backward(gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> int:
    count: int = sdpa_backward_flop_count(gradient, queries, keys, values)
    return count
