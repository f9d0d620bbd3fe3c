from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.functional.preference_losses import (
    PairLoss,
    hinge_loss,
    imitation_loss,
    ipo_loss,
    preference_loss,
    robust_loss,
    sigmoid_loss,
)
from textenv import models, tasks
from textenv.enumeration import all_logprobs, all_rewards, exact_optimum, objective_of, total_variation
from textenv.rewards import GoldReward


def test_sigmoid_loss_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -4.0], [-2.0, -1.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, -3.0], [-2.0, -2.0]])
    # Log-ratios 1 and -1, and 0 and 1, so that d is 0.5 * 2 = 1 and 0.5 * -1 = -0.5.
    result = preference_loss(logprobs, reference, torch.tensor([1.0, 0.25]), beta=0.5)
    first = -math.log(1 / (1 + math.exp(-1)))
    second = -0.25 * math.log(1 / (1 + math.exp(0.5))) - 0.75 * math.log(1 / (1 + math.exp(-0.5)))
    assert result.loss.item() == pytest.approx((first + second) / 2)
    assert result.accuracy.item() == 1.0
    assert result.margin.item() == 0.75
    result.loss.backward()
    # d's slope is σ(d) - l, and d's own in the log-probabilities ±β; half of it by the mean.
    slopes = [0.25 * (1 / (1 + math.exp(-1)) - 1), 0.25 * (1 / (1 + math.exp(0.5)) - 0.25)]
    assert logprobs.grad is not None
    assert logprobs.grad.flatten().tolist() == pytest.approx([slopes[0], -slopes[0], slopes[1], -slopes[1]])


def test_what_was_preferred_and_what_was_not_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -4.0], [-2.0, -1.0], [-3.0, -5.0]], requires_grad=True)
    reference = torch.tensor([[-2.0, -3.0], [-2.0, -2.0], [-2.0, -2.0]])
    result = preference_loss(logprobs, reference, torch.tensor([1.0, 0.25, 0.5]), beta=0.5)
    # Rewards 0.5 and -0.5, 0 and 0.5, -0.5 and -1.5; the first wins, the second wins, and a tie.
    assert result.chosen_reward.item() == pytest.approx((0.5 + 0.5 - 1) / 3)
    assert result.rejected_reward.item() == pytest.approx((-0.5 + 0 - 1) / 3)
    assert result.margin.item() == pytest.approx((1 + 0.5 + 0) / 3)
    assert result.chosen_logprob.item() == pytest.approx((-1 - 1 - 4) / 3)
    assert not any(part.requires_grad for part in result[1:])


def test_a_tie_counts_one_half() -> None:
    logprobs = torch.tensor([[0.0, -1.0], [-1.0, -1.0], [-1.0, 0.0]])
    result = preference_loss(logprobs, torch.full((3, 2), -1.0), torch.tensor([0.5, 1.0, 1.0]), beta=1.0)
    # A label that is a tie, rewards that are one, and a wrong order.
    assert result.accuracy.item() == pytest.approx(1 / 3)
    assert result.margin.item() == pytest.approx(-1 / 3)


numbers = st.floats(-4, 0, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers, st.floats(0, 1, width=32)), min_size=1, max_size=5))
def test_it_does_not_matter_which_is_shown_first(rows: list[tuple[float, ...]]) -> None:
    table = torch.tensor(rows)
    logprobs, reference, label = table[:, :2], table[:, 2:4], table[:, 4]
    shown = preference_loss(logprobs, reference, label, 0.3)
    swapped = preference_loss(logprobs.flip(1), reference.flip(1), 1 - label, 0.3)
    torch.testing.assert_close(shown, swapped)


@settings(deadline=None)
@given(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32))
def test_it_is_least_where_the_rewards_say_the_label(difference: float, other: float) -> None:
    label = torch.tensor([difference]).sigmoid()

    def loss(d: float) -> float:
        return preference_loss(torch.tensor([[d, 0.0]]), torch.zeros(1, 2), label, beta=1.0).loss.item()

    assert loss(difference) <= loss(other) + 1e-6


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"logprobs \(3, 2\) and reference_logprobs \(3, 2\) .* for 2 labels"):
        preference_loss(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"reference_logprobs \(2,\)"):
        preference_loss(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2), 1.0)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no loss 'probit'; there are sigmoid, ipo, hinge, robust"):
        preference_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1), 1.0, "probit")  # type: ignore[arg-type]  # On purpose.


PAIR = torch.tensor([0.5, -2.0])
LABEL = torch.tensor([1.0, 0.25])


def log_sigmoid(d: float) -> float:
    return -math.log1p(math.exp(-d))


def test_smoothed_sigmoid_loss_by_hand() -> None:
    # Of l = 1 and 0.25 with ε = 0.1 remain 0.9 and 0.9 * 0.25 + 0.1 * 0.75 = 0.3.
    expected = -(0.9 * log_sigmoid(0.5) + 0.1 * log_sigmoid(-0.5) + 0.3 * log_sigmoid(-2) + 0.7 * log_sigmoid(2)) / 2
    assert sigmoid_loss(PAIR, LABEL, 0.1).item() == pytest.approx(expected)


def test_robust_loss_by_hand() -> None:
    # (1 - 0.1) / 0.8 = 1.125 and (0.25 - 0.1) / 0.8 = 0.1875.
    first = 1.125 * log_sigmoid(0.5) - 0.125 * log_sigmoid(-0.5)
    second = 0.1875 * log_sigmoid(-2) + 0.8125 * log_sigmoid(2)
    assert robust_loss(PAIR, LABEL, 0.1).item() == pytest.approx(-(first + second) / 2)


def test_ipo_loss_by_hand() -> None:
    # With β = 0.5, d/β is 1 and -4, and is to be 1 where the first wins, -1 where the second does.
    assert ipo_loss(PAIR, LABEL, 0.5).item() == pytest.approx((0 + 0.25 * 25 + 0.75 * 9) / 2)


def test_hinge_loss_by_hand() -> None:
    assert hinge_loss(PAIR, LABEL).item() == pytest.approx((0.5 + 0.25 * 3 + 0.75 * 0) / 2)


@pytest.mark.parametrize("kind", get_args(PairLoss))
def test_each_loss_has_its_name(kind: PairLoss) -> None:
    by_name: dict[PairLoss, Callable[[], torch.Tensor]] = {
        "sigmoid": lambda: sigmoid_loss(PAIR, LABEL, 0.1),
        "robust": lambda: robust_loss(PAIR, LABEL, 0.1),
        "ipo": lambda: ipo_loss(PAIR, LABEL, 0.5),
        "hinge": lambda: hinge_loss(PAIR, LABEL),
    }
    logprobs = torch.stack([PAIR / 0.5 - 1, torch.full((2,), -1.0)], dim=1)
    result = preference_loss(logprobs, torch.full((2, 2), -1.0), LABEL, 0.5, kind, 0.1)
    torch.testing.assert_close(result.loss, by_name[kind]())


@settings(deadline=None)
@given(st.floats(-3, 3, width=32), st.sampled_from([0.0, 1.0]), st.floats(0, 0.4))
def test_robust_loss_of_turned_labels_is_on_average_that_of_the_true_ones(d: float, label: float, wrong: float) -> None:
    difference, true = torch.tensor([d]), torch.tensor([label])
    turned = (1 - wrong) * robust_loss(difference, true, wrong) + wrong * robust_loss(difference, 1 - true, wrong)
    torch.testing.assert_close(turned, sigmoid_loss(difference, true), atol=1e-5, rtol=1e-5)


RESPONSES, BETA = 6, 0.4


def six_responses() -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of a reference, and rewards."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(RESPONSES, generator=generator, dtype=torch.float64)
    return torch.randn(RESPONSES, generator=generator, dtype=torch.float64).log_softmax(dim=0), rewards


def least(
    kind: PairLoss, reference: torch.Tensor, rewards: torch.Tensor, beta: float, wrong: float = 0.0
) -> torch.Tensor:
    """The policy on some responses whose loss is least, all pairs compared.

    Labels are σ(r₁ − r₂), a share `wrong` of which is turned round, as the loss is told where it can be.
    """
    responses = range(len(rewards))
    pairs = torch.tensor([pair for a, b in combinations(responses, 2) for pair in ((a, b), (b, a))])
    true = (rewards[pairs[:, 0]] - rewards[pairs[:, 1]]).sigmoid()
    label = (1 - wrong) * true + wrong * (1 - true)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logprobs = logits.log_softmax(dim=0)[pairs]
        loss = preference_loss(logprobs, reference[pairs], label, beta, kind, wrong).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(dim=0)


def test_sigmoid_loss_of_all_pairs_leads_to_the_optimum_of_the_objective() -> None:
    reference, rewards = six_responses()
    policy = least("sigmoid", reference, rewards, BETA)
    torch.testing.assert_close(policy, (reference + rewards / BETA).softmax(dim=0), atol=1e-5, rtol=1e-4)


def test_robust_loss_leads_there_from_labels_that_are_turned_round() -> None:
    reference, rewards = six_responses()
    policy = least("robust", reference, rewards, BETA, wrong=0.2)
    torch.testing.assert_close(policy, (reference + rewards / BETA).softmax(dim=0), atol=1e-5, rtol=1e-4)


def test_sigmoid_loss_leads_to_the_optimum_of_exact() -> None:
    """Among the policies that change the reference by a factor for each reward; the optimum is one of them."""
    task, reference = tasks.load("exact"), models.load("exact")
    rewards = all_rewards(task, GoldReward(task), reference)
    base = all_logprobs(task, reference).double().log_softmax(dim=1)
    policy = torch.empty_like(base)
    for prompt in range(len(base)):
        levels, level = rewards[prompt].unique(return_inverse=True)
        mass = torch.zeros(len(levels), dtype=torch.float64).index_add(0, level, base[prompt].exp())
        tilted = least("sigmoid", mass.log(), levels, task.beta)
        policy[prompt] = base[prompt] + (tilted / mass).log()[level]
    best = exact_optimum(task, reference, GoldReward(task), task.beta)
    start, reached = (objective_of(each, base, rewards, task.beta).objective for each in (base, policy))
    assert float((reached - start) / (best.value.objective - start)) > 0.999
    assert float(total_variation(policy, best.logprobs).max()) < 0.01


def test_smoothing_leads_to_the_smoothed_odds() -> None:
    # Of two responses; for more, smoothed labels are no longer those of any rewards.
    difference = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([difference], max_iter=100, line_search_fn="strong_wolfe")
    optimizer.step(lambda: loss_of(difference, optimizer, lambda d: sigmoid_loss(d, torch.ones(1), 0.2)))
    assert difference.sigmoid().item() == pytest.approx(0.8, abs=1e-4)


def test_ipo_loss_of_all_pairs_leads_to_the_odds_of_the_mean_probability_to_win() -> None:
    reference, rewards = six_responses()
    policy = least("ipo", reference, rewards, BETA)
    wins = (rewards[:, None] - rewards).sigmoid().mean(dim=1)
    torch.testing.assert_close(policy, (reference + wins / BETA).softmax(dim=0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("label", "best"), [(1.0, 1.0), (0.7, 1.0), (0.3, -1.0)])
def test_hinge_loss_leads_to_a_margin_of_one(label: float, best: float) -> None:
    grid = torch.linspace(-3, 3, 61)
    losses = torch.stack([hinge_loss(d[None], torch.tensor([label])) for d in grid])
    # A sure label is as content with more.
    least = grid[losses <= losses.min() + 1e-6]
    assert least[least.abs().argmin()].item() == pytest.approx(best)


def test_imitation_loss_by_hand() -> None:
    # A token's log-probabilities are -1 and -2, and -3 and -1.
    logprobs = torch.tensor([[-2.0, -2.0], [-3.0, -4.0]])
    loss = imitation_loss(logprobs, torch.tensor([[2, 1], [1, 4]]), torch.tensor([1.0, 0.75]))
    assert loss.item() == pytest.approx((1 + 0.75 * 3 + 0.25 * 1) / 2)
    with pytest.raises(ValueError, match=r"lengths \(2,\) must both be \(n, 2\) for 2 labels"):
        imitation_loss(logprobs, torch.ones(2), torch.zeros(2))


def loss_of(
    difference: torch.Tensor, optimizer: torch.optim.Optimizer, loss: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    optimizer.zero_grad()
    value = loss(difference)
    value.backward()
    return value
