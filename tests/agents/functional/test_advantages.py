from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.functional.advantages import gae, group_relative, leave_one_out, leave_one_out_with_kl

ONE_OFF = torch.tensor([[True, True, False]])


def lengths_and_values(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    width = draw(st.integers(1, 6))
    lengths = torch.tensor(draw(st.lists(st.integers(1, width), min_size=1, max_size=5)))
    mask = torch.arange(width) < lengths[:, None]
    numbers = st.floats(-10, 10, width=32)
    count = mask.numel()
    values = torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count))).reshape(mask.shape)
    return mask, values


masked_values = st.composite(lengths_and_values)()


def test_gae_by_hand() -> None:
    # Deltas: 1 + 0.5*2 - 0.5 = 1.5, and 3 - 2 = 1 at the end, where nothing follows.
    # Advantages: 1.5 + 0.5*0.5*1 = 1.75, and 1.
    rewards, values = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[0.5, 2.0, 99.0]])
    advantages, returns = gae(rewards, values, ONE_OFF, gamma=0.5, gae_lambda=0.5)
    assert advantages.tolist() == [[1.75, 1.0, 0.0]]
    assert returns.tolist() == [[2.25, 3.0, 0.0]]


@settings(deadline=None)
@given(masked_values)
def test_gae_with_lambda_1_is_the_return_less_the_value(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, rewards = case
    values = rewards.flip(1)
    advantages, returns = gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0)
    for row, (keep, reward) in enumerate(zip(mask, rewards, strict=True)):
        paid = reward[keep].tolist()
        to_come = [sum(paid[t:]) for t in range(len(paid))]
        assert returns[row][keep].tolist() == pytest.approx(to_come, abs=1e-3)
        assert (advantages[row][keep] + values[row][keep]).tolist() == pytest.approx(to_come, abs=1e-3)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()


@settings(deadline=None)
@given(masked_values)
def test_gae_with_lambda_0_looks_one_step_ahead(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, rewards = case
    values = rewards.flip(1)
    advantages, _ = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.0)
    kept = values.masked_fill(~mask, 0.0)
    following = torch.cat([kept[:, 1:], torch.zeros(len(kept), 1)], dim=1)
    expected = (rewards + 0.9 * following - values).masked_fill(~mask, 0.0)
    torch.testing.assert_close(advantages, expected)


def test_shapes_of_gae_are_checked() -> None:
    with pytest.raises(ValueError, match=r"values has shape \(1, 2\), the mask \(1, 3\)"):
        gae(torch.zeros(1, 3), torch.zeros(1, 2), ONE_OFF, 1.0, 0.95)


def test_leave_one_out_by_hand() -> None:
    # The others' means are 3, 2, 1.5 and -2, 5.
    rewards = torch.tensor([0.0, 2.0, 4.0])
    assert leave_one_out(rewards, 3).tolist() == [-3.0, 0.0, 3.0]
    assert leave_one_out(torch.tensor([5.0, -2.0, 1.0, 1.0]), 2).tolist() == [7.0, -7.0, 0.0, 0.0]


def test_group_relative_by_hand() -> None:
    rewards = torch.tensor([0.0, 2.0, 4.0, 7.0, 7.0, 7.0])
    assert group_relative(rewards, 3, scale=False).tolist() == [-2.0, 0.0, 2.0, 0.0, 0.0, 0.0]
    # Deviation (with n - 1) 2, and 0, which is divided by 0.0001 instead.
    assert group_relative(rewards, 3, scale=True).tolist() == pytest.approx([-1.0, 0, 1.0, 0, 0, 0], abs=1e-4)


groups = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.integers(1, 4).flatmap(lambda n: st.lists(st.floats(-9, 9, width=32), min_size=n * k, max_size=n * k)),
    )
)


@settings(deadline=None)
@given(groups, st.floats(-5, 5, width=32))
def test_what_a_whole_group_gains_changes_no_advantage(case: tuple[int, list[float]], gain: float) -> None:
    k, values = case
    rewards = torch.tensor(values)
    for advantages in (lambda r: leave_one_out(r, k), lambda r: group_relative(r, k, scale=False)):
        torch.testing.assert_close(advantages(rewards + gain), advantages(rewards), atol=1e-4, rtol=1e-4)
        assert advantages(rewards).view(-1, k).sum(dim=1).abs().max().item() < 1e-3
    torch.testing.assert_close(
        group_relative(rewards, k, scale=False), leave_one_out(rewards, k) * (k - 1) / k, atol=1e-4, rtol=1e-4
    )


def test_the_kl_to_come_counts_against_a_token_by_hand() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    costs = torch.tensor([[9.0, 2.0, 1.0], [9.0, 7.0, 7.0]])
    # Returns 5 - 3, 5 - 1 and 5 of the first; 1 and no cost to come of the second, whose other tokens are none.
    advantages = leave_one_out_with_kl(torch.tensor([5.0, 1.0]), costs, mask, 2)
    assert advantages.tolist() == [[1.0, 3.0, 4.0], [-1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("shape", "group_size"), [((3,), 2), ((4,), 1), ((2, 2), 2)])
def test_what_is_no_groups_is_refused(shape: tuple[int, ...], group_size: int) -> None:
    with pytest.raises(ValueError, match=f"are no groups of {group_size}"):
        leave_one_out(torch.zeros(shape), group_size)
    with pytest.raises(ValueError, match=f"are no groups of {group_size}"):
        group_relative(torch.zeros(shape), group_size, scale=True)


def test_group_relative_advantages_of_huge_rewards_are_those_of_small_ones() -> None:
    rewards = torch.tensor([1.0, 2.0, 4.0])
    small, huge = (group_relative(scale * rewards, 3, scale=True) for scale in (1.0, 1e30))
    torch.testing.assert_close(huge, small, rtol=1e-4, atol=0)
