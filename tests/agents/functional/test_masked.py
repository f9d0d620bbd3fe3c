from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.functional.masked import masked_mean, masked_variance, masked_whiten, mean_of_responses, sum_of_responses

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


def test_masked_mean_and_variance_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0, 1000.0]])
    assert masked_mean(values, ONE_OFF).item() == 2.0
    assert masked_variance(values, ONE_OFF).item() == 1.0
    assert masked_mean(values, torch.zeros(1, 3, dtype=torch.bool)).item() == 0.0


def test_a_sum_of_responses_weighs_each_token_the_same() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert sum_of_responses(torch.tensor([[1.0, 3.0], [4.0, math.nan]]), mask).item() == 4.0


def test_masked_columns_may_hold_anything() -> None:
    values = torch.tensor([[1.0, 3.0, math.nan]])
    assert masked_mean(values, ONE_OFF).item() == 2.0
    assert masked_whiten(values, ONE_OFF)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0])


def test_whitening_by_hand() -> None:
    values = torch.tensor([[1.0, 5.0, 7.0]])
    # Mean 3, deviation 2.
    assert masked_whiten(values, ONE_OFF)[0].tolist() == pytest.approx([-1.0, 1.0, 0.0])
    assert masked_whiten(values, ONE_OFF, shift_mean=False)[0].tolist() == pytest.approx([2.0, 4.0, 0.0])


@settings(deadline=None)
@given(masked_values)
def test_whitened_values_have_mean_0_and_variance_at_most_1(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, values = case
    white = masked_whiten(values, mask)
    # Where all values are equal, the rounding of their mean is divided by the root of 1e-8.
    assert abs(masked_mean(white, mask).item()) < 5e-2
    assert masked_variance(white, mask).item() < 1 + 1e-3
    kept = masked_whiten(values, mask, shift_mean=False)
    assert masked_mean(kept, mask).item() == pytest.approx(masked_mean(values, mask).item(), abs=5e-2)


def test_the_mean_of_responses_weighs_each_response_alike() -> None:
    values = torch.tensor([[1.0, 3.0, math.nan], [8.0, math.nan, math.nan], [math.nan, math.nan, math.nan]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    # Means 2, 8 and, of nothing, 0.
    assert mean_of_responses(values, mask).item() == pytest.approx(10 / 3)
    assert masked_mean(values, mask).item() == 4.0


def test_the_mask_is_checked() -> None:
    with pytest.raises(ValueError, match="mask must be boolean"):
        masked_mean(torch.zeros(1, 3), torch.ones(1, 3))
