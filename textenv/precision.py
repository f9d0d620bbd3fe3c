"""In which numbers the matrix products of learning, and of sampling what is learned from, are computed.

With bfloat16 the linear layers multiply in bfloat16, while weights, gradients, norms, attention and the optimiser
stay in float32 (mixed precision: Micikevicius et al. 2018, arXiv:1710.03740). Attention stays because its backward
pass in bfloat16 is many times slower on a processor than in float32. A processor that has no bfloat16 of its own
emulates it, at many times the cost of float32.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from textenv import processor

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["float32", "bfloat16"]

FLAGS = ("avx512_bf16", "amx_bf16")
"""What Linux calls the instructions of x86 that multiply in bfloat16."""

OLDER = ("default", "avx2")
"""What ATEN_CPU_CAPABILITY, by which torch is told to leave newer instructions alone, has where it has none of them."""


def native() -> Precision:
    """The faster one here: bfloat16 where the processor multiplies in it, and torch is not told to do without."""
    if os.environ.get("ATEN_CPU_CAPABILITY", "").lower() in OLDER:
        return "float32"
    flags = processor.described().get("flags", "").split()
    return "bfloat16" if any(flag in flags for flag in FLAGS) else "float32"


def numerics(precision: Precision) -> AbstractContextManager[object]:
    """Within it, linear layers multiply so."""
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


def rounded(x: Tensor) -> Tensor:
    """What several linear layers take, in the numbers that they multiply in: once for all of them."""
    import torch

    return x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x


def full_precision() -> AbstractContextManager[object]:
    """Within it, everything is computed in the numbers that it is given in."""
    import torch

    return torch.autocast("cpu", enabled=False)
