import math

import pytest
import torch

from textenv.bradley_terry import bradley_terry_loss
from textenv.feedback_losses import ordinal_loss, plackett_luce_loss


def test_plackett_luce_worked_out_by_hand():
    # e^r is 3, 1 and 1: 3/5 · 1/2; and in the order 1, 3, 1: 1/5 · 3/4.
    scores = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, math.log(3), 0.0]])
    assert float(plackett_luce_loss(scores[:1])) == pytest.approx(-math.log(0.3))
    assert float(plackett_luce_loss(scores)) == pytest.approx(-(math.log(0.3) + math.log(0.15)) / 2)


def test_with_two_responses_it_is_bradley_and_terrys():
    scores = torch.tensor([[0.3, -1.0], [2.0, 2.5]])
    torch.testing.assert_close(plackett_luce_loss(scores), bradley_terry_loss(*scores.unbind(1), torch.ones(2)))


def test_an_offset_and_large_scores_change_nothing():
    scores = torch.tensor([[5.0, 1.0, 2.0]])
    torch.testing.assert_close(plackett_luce_loss(scores + 500), plackett_luce_loss(scores))


def test_two_levels_are_logistic_regression():
    scores, up = torch.tensor([math.log(3), math.log(3)]), torch.tensor([1, 0])
    assert float(ordinal_loss(scores, up, torch.zeros(1))) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_levels_worked_out_by_hand():
    # σ(s − c) is 3/4 and 1/4: the three levels have 1/4, 1/2 and 1/4.
    cuts = torch.tensor([-math.log(3), math.log(3)])
    chances = [math.exp(-float(ordinal_loss(torch.zeros(1), torch.tensor([level]), cuts))) for level in range(3)]
    assert chances == pytest.approx([0.25, 0.5, 0.25])
    # Far out nothing overflows, and the gradient is finite: −log σ(c_1 − s) is s − c_1 there.
    scores = torch.tensor([200.0], requires_grad=True)
    loss = ordinal_loss(scores, torch.tensor([0]), cuts.requires_grad_())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(200 + math.log(3))
    assert float(scores.grad) == pytest.approx(1)
    assert bool(cuts.grad.isfinite().all())


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"scores have shape \(3, 1\), expected \(n, k\)"):
        plackett_luce_loss(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="shapes do not go together"):
        ordinal_loss(torch.zeros(3), torch.zeros(2, dtype=torch.long), torch.zeros(1))
    with pytest.raises(ValueError, match="levels go from 0 to 1, got 0 to 2"):
        ordinal_loss(torch.zeros(2), torch.tensor([0, 2]), torch.zeros(1))
