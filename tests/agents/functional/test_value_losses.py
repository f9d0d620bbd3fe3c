from __future__ import annotations

import pytest
import torch

from agents.functional.value_losses import explained_variance, value_loss

ONE_OFF = torch.tensor([[True, True, False]])


@pytest.mark.parametrize(
    ("value", "clip_range", "loss", "clipped"),
    [
        (0.1, 0.2, 0.405, 0.0),  # within the range: (0.1 - 1)^2 / 2
        (0.6, 0.2, 0.32, 1.0),  # better than may be claimed: (0.2 - 1)^2 / 2
        (-0.6, 0.2, 1.28, 0.0),  # worse than the clipped one: (-0.6 - 1)^2 / 2
        (0.6, None, 0.08, 0.0),
    ],
)
def test_value_loss_by_hand(value: float, clip_range: float | None, loss: float, clipped: float) -> None:
    result = value_loss(
        torch.tensor([[value, 50.0]]),
        torch.zeros(1, 2),
        torch.tensor([[1.0, -50.0]]),
        torch.tensor([[True, False]]),
        clip_range,
    )
    assert result.loss.item() == pytest.approx(loss)
    assert result.clip_fraction.item() == clipped


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([[1.0, 3.0, 9.0]])
    assert explained_variance(returns, returns, ONE_OFF).item() == 1.0
    assert explained_variance(torch.full((1, 3), 7.0), returns, ONE_OFF).item() == 0.0
    # Residuals 0.5 and -0.5 have variance 0.25, the returns 1.
    assert explained_variance(torch.tensor([[0.5, 3.5, 0.0]]), returns, ONE_OFF).item() == 0.75
    assert explained_variance(torch.tensor([[0.5, 3.5, 0.0]]), torch.ones(1, 3), ONE_OFF).item() == 0.0
