"""KL estimators against numbers worked out by hand, and against their expectations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textenv.kl import full_kl, k1, k2, k3

LOGITS = st.lists(st.floats(-5, 5), min_size=3, max_size=3)


def test_numbers_worked_out_by_hand():
    # p = 1/2 and q = 1/4 for the token: the log-ratio is ln 2, and q/p is 1/2.
    logp, logq = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    torch.testing.assert_close(k1(logp, logq), torch.tensor([0.693147]))
    torch.testing.assert_close(k2(logp, logq), torch.tensor([0.240227]))
    torch.testing.assert_close(k3(logp, logq), torch.tensor([0.193147]))


def test_full_kl_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4): ½ ln 2 + ½ ln ⅔ = ½ ln 4/3.
    logits_p = torch.tensor([[[0.0, 0.0]]])
    logits_q = torch.tensor([[[0.0, math.log(3)]]])
    torch.testing.assert_close(full_kl(logits_p, logits_q), torch.tensor([[0.143841]]))


@given(LOGITS, LOGITS)
def test_full_kl_is_what_k1_and_k3_are_on_average(first, second):
    logp = torch.log_softmax(torch.tensor(first, dtype=torch.float64), -1)
    logq = torch.log_softmax(torch.tensor(second, dtype=torch.float64), -1)
    kl = full_kl(logp, logq).double()
    assert kl >= -1e-6
    torch.testing.assert_close((logp.exp() * k1(logp, logq)).sum(), kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((logp.exp() * k3(logp, logq)).sum(), kl, rtol=1e-4, atol=1e-5)
    assert (k2(logp, logq) >= 0).all()
    assert (k3(logp, logq) >= -1e-12).all()


def test_a_token_that_p_excludes_adds_nothing():
    logits_p = torch.tensor([0.0, -torch.inf])
    torch.testing.assert_close(full_kl(logits_p, torch.zeros(2)), torch.tensor(math.log(2)))


def test_k2_as_a_loss_has_the_gradient_of_the_kl():
    logits = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    logq = torch.log_softmax(torch.tensor([-0.2, 0.4, 0.1], dtype=torch.float64), -1)
    logp = torch.log_softmax(logits, -1)
    exact = torch.autograd.grad((logp.exp() * (logp - logq)).sum(), logits, retain_graph=True)[0]
    surrogate = torch.autograd.grad((logp.detach().exp() * k2(logp, logq)).sum(), logits)[0]
    torch.testing.assert_close(surrogate, exact)


@pytest.mark.parametrize("estimator", [k1, k2, k3, full_kl])
def test_unequal_shapes_are_refused(estimator):
    with pytest.raises(ValueError, match="shapes"):
        estimator(torch.zeros(2, 3), torch.zeros(3))
