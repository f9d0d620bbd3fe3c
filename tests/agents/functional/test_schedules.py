from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.functional.schedules import Schedule, learning_rate_factor


@pytest.mark.parametrize(
    ("progress", "schedule", "warmup", "factor"),
    [
        (0.0, "linear", 0.0, 1.0),
        (0.25, "linear", 0.0, 0.75),
        (1.0, "linear", 0.0, 0.0),
        (0.25, "cosine", 0.0, 0.8535534),  # (1 + cos 45°) / 2
        (0.5, "cosine", 0.0, 0.5),
        (0.9, "constant", 0.0, 1.0),
        (0.0, "constant", 0.2, 0.1),
        (0.1, "cosine", 0.2, 0.55),
        (0.2, "linear", 0.2, 1.0),
        (0.6, "linear", 0.2, 0.5),
    ],
)
def test_factors_by_hand(progress: float, schedule: Schedule, warmup: float, factor: float) -> None:
    assert learning_rate_factor(progress, schedule, warmup) == pytest.approx(factor)


@given(st.floats(0, 1), st.sampled_from(get_args(Schedule)), st.floats(0, 0.9))
def test_a_factor_is_never_beyond_one(progress: float, schedule: Schedule, warmup: float) -> None:
    assert 0 <= learning_rate_factor(progress, schedule, warmup) <= 1
