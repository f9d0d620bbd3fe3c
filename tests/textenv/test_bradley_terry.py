import math

import pytest
import torch

from textenv.bradley_terry import bradley_terry_loss


def test_the_loss_worked_out_by_hand():
    # σ(ln 3) = 3/4: a right label costs −ln 3/4, a wrong one −ln 1/4, a tie the mean of both.
    first, second = torch.full((3,), math.log(3)), torch.zeros(3)
    for label, cost in [(1.0, -math.log(0.75)), (0.0, -math.log(0.25)), (0.5, -math.log(0.1875) / 2)]:
        loss = bradley_terry_loss(first[:1], second[:1], torch.tensor([label]))
        assert float(loss) == pytest.approx(cost, abs=1e-6)
    mean = bradley_terry_loss(first, second, torch.tensor([1.0, 0.0, 0.5]))
    assert float(mean) == pytest.approx(-math.log(0.1875) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="shapes differ"):
        bradley_terry_loss(first, second, torch.ones(1))


def test_the_loss_is_finite_far_out():
    loss = bradley_terry_loss(torch.tensor([1000.0]), torch.tensor([0.0]), torch.tensor([0.0]))
    assert float(loss) == pytest.approx(1000.0)
