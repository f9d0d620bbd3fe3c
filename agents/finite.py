"""The guard that keeps numbers that went bad out of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from textenv.errors import TextenvError


def require_finite(quantities: dict[str, Tensor]) -> None:
    """Stops training before a NaN or an infinity reaches the weights.

    Raises:
        TextenvError: names the first quantity that went bad.
    """
    for name, value in quantities.items():
        if not bool(torch.isfinite(value).all()):
            bad = value[~torch.isfinite(value)].flatten()[0].item()
            raise TextenvError(
                f"the {name} became {bad}, so training stopped before it could spoil the weights; "
                "lower the learning rate, or give a reward that stays finite"
            )
