"""KL estimators against numbers worked out by hand, and against their expectations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textenv import models, tasks
from textenv.enumeration import all_prompts, expected_over_states, next_token_tree, response_logprobs
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


def kl_of(logp, logq):
    return (logp.exp() * (logp - logq)).sum()


@pytest.mark.parametrize(
    ("estimator", "followed"),
    [(k1, lambda logp, logq: 0 * logp.sum()), (k2, kl_of), (k3, lambda logp, logq: kl_of(logq, logp))],
)
def test_the_gradient_of_an_estimator_as_a_loss(estimator, followed):
    """On average over tokens drawn from p: none of k1's, that of KL(p‖q) of k2's, that of KL(q‖p) of k3's."""
    logits = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    logq = torch.log_softmax(torch.tensor([-0.2, 0.4, 0.1], dtype=torch.float64), -1)
    logp = torch.log_softmax(logits, -1)
    expected = torch.autograd.grad(followed(logp, logq), logits, retain_graph=True)[0]
    found = torch.autograd.grad((logp.detach().exp() * estimator(logp, logq)).sum(), logits)[0]
    torch.testing.assert_close(found, expected)


def test_token_by_token_the_gradient_lacks_what_a_token_does_to_the_kl_to_come():
    """Of a policy on Exact-v0, by enumeration of all responses, in the space of its output layer's weights."""
    task, reference = tasks.load("exact"), models.load("exact")
    prompts, policy = all_prompts(task), reference.copy()
    weight = policy.model.lm_head.weight
    with torch.no_grad():
        weight.mul_(1.3)
    trees = [next_token_tree(each, prompts, task.response_length) for each in (policy, reference)]
    chosen, base = (response_logprobs(tree, reference.eos_id) for tree in trees)

    def gradient(loss):
        return torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten().double()

    exact = gradient((chosen.exp() * (chosen - base)).sum(dim=1).mean())
    whole = gradient((chosen.detach().exp() * k2(chosen, base)).sum(dim=1).mean())
    torch.testing.assert_close(whole, exact, rtol=1e-3, atol=1e-4)
    # The states are those that are visited, whatever the loss does to how often they are.
    fixed = [level.detach() for level in trees[0]]
    k2_of_tokens = [(level.exp() * k2(new, other)).sum(dim=-1) for level, new, other in zip(fixed, *trees, strict=True)]
    sum_of_tokens = [full_kl(new, other) for new, other in zip(*trees, strict=True)]
    for per_token in (k2_of_tokens, sum_of_tokens):
        found = gradient(expected_over_states(fixed, per_token, reference.eos_id).mean())
        assert float(torch.cosine_similarity(found, exact, dim=0)) == pytest.approx(0.9985, abs=2e-4)
        assert float(found @ exact / exact.square().sum()) == pytest.approx(0.982, abs=2e-3)


@pytest.mark.parametrize("estimator", [k1, k2, k3, full_kl])
def test_unequal_shapes_are_refused(estimator):
    with pytest.raises(ValueError, match="shapes"):
        estimator(torch.zeros(2, 3), torch.zeros(3))
