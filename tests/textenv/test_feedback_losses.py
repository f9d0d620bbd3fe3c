import math

import pytest
import torch

from textenv.bradley_terry import bradley_terry_loss
from textenv.feedback_losses import plackett_luce_loss, thumbs_loss


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


def test_thumbs_worked_out_by_hand():
    loss = thumbs_loss(torch.tensor([math.log(3), math.log(3)]), torch.tensor([1.0, 0.0]))
    assert float(loss) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"scores have shape \(3, 1\), expected \(n, k\)"):
        plackett_luce_loss(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="shapes differ"):
        thumbs_loss(torch.zeros(3), torch.zeros(2))
