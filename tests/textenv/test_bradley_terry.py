import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textenv.bradley_terry import bradley_terry_loss, smoothed_label, unflipped_label


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


def test_a_weight_counts_as_so_many_comparisons():
    first, second = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.1, 0.5, 0.0])
    label = torch.tensor([1.0, 1.0, 0.0])
    weighted = bradley_terry_loss(first, second, label, torch.tensor([2.0, 0.0, 1.0]))
    rows = torch.tensor([0, 0, 2])
    assert float(weighted) == pytest.approx(float(bradley_terry_loss(first[rows], second[rows], label[rows])), abs=1e-6)
    with pytest.raises(ValueError, match="weight"):
        bradley_terry_loss(first, second, label, torch.ones(2))


def test_smoothing_worked_out_by_hand_and_turned_back():
    label = torch.tensor([1.0, 0.0, 0.5, 0.25])
    torch.testing.assert_close(smoothed_label(label, 0.1), torch.tensor([0.9, 0.1, 0.5, 0.3]))
    torch.testing.assert_close(unflipped_label(smoothed_label(label, 0.1), 0.1), label)
    assert torch.equal(smoothed_label(label, 0.0), label)
    assert torch.equal(unflipped_label(label, 0.0), label)
    # The best margin is finite: log(0.9/0.1), where the loss no longer falls.
    margin = torch.tensor([math.log(9)], requires_grad=True)
    loss = bradley_terry_loss(margin, torch.zeros(1), smoothed_label(torch.ones(1), 0.1))
    assert float(torch.autograd.grad(loss, margin)[0]) == pytest.approx(0, abs=1e-6)


@given(st.floats(-5, 5), st.floats(0, 0.45), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_corrected_loss_and_its_gradient_are_on_average_over_flips_those_of_the_clean_label(margin, flipped, label):
    difference = torch.tensor([margin], dtype=torch.double, requires_grad=True)
    zero, clean = torch.zeros(1, dtype=torch.double), torch.tensor([label], dtype=torch.double)

    def loss(seen: torch.Tensor) -> torch.Tensor:
        return bradley_terry_loss(difference, zero, unflipped_label(seen, flipped))

    averaged = (1 - flipped) * loss(clean) + flipped * loss(1 - clean)
    wanted = bradley_terry_loss(difference, zero, clean)
    assert averaged.item() == pytest.approx(wanted.item(), abs=1e-9)
    (mean_gradient,) = torch.autograd.grad(averaged, difference)
    (gradient,) = torch.autograd.grad(wanted, difference)
    assert mean_gradient.item() == pytest.approx(gradient.item(), abs=1e-9)
    # Natarajan's form of it: ((1 − ε)·ℓ(y) − ε·ℓ(1 − y))/(1 − 2ε).
    other = bradley_terry_loss(difference, zero, 1 - clean)
    natarajan = ((1 - flipped) * wanted - flipped * other) / (1 - 2 * flipped)
    assert loss(clean).item() == pytest.approx(natarajan.item(), abs=1e-9)


def test_labels_that_say_nothing_cannot_be_corrected():
    with pytest.raises(ValueError, match="say nothing"):
        unflipped_label(torch.ones(2), 0.5)
    with pytest.raises(ValueError, match="say nothing"):
        unflipped_label(torch.ones(2), torch.tensor([0.1, 0.5]))
    torch.testing.assert_close(unflipped_label(torch.tensor([1.0]), torch.tensor([1.0])), torch.zeros(1))
