from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.kl_control import AdaptiveBeta, FixedBeta, kl_control
from textenv.errors import UsageError


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.5),  # on target
        (6.6, 0.505),  # e = 0.1
        (5.4, 0.495),
        (60.0, 0.51),  # e clipped at 0.2
        (-1.0, 0.49),
    ],
)
def test_adaptive_beta_by_hand(kl: float, expected: float) -> None:
    assert AdaptiveBeta(target=6.0).next_beta(0.5, kl) == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-100, 100), st.floats(0.01, 50))
def test_beta_moves_against_the_kl_and_stays_positive(beta: float, kl: float, target: float) -> None:
    moved = AdaptiveBeta(target).next_beta(beta, kl)
    assert 0.98 * beta * (1 - 1e-12) <= moved <= 1.02 * beta * (1 + 1e-12)
    assert (moved - beta) * (kl - target) >= 0


def test_without_a_target_beta_is_fixed() -> None:
    control = kl_control(None, 0.0)
    assert control == FixedBeta()
    assert control.next_beta(0.3, 99.0) == 0.3


def test_a_target_needs_a_beta_that_can_move() -> None:
    assert kl_control(4.0, 0.1) == AdaptiveBeta(4.0)
    with pytest.raises(UsageError, match="beta=0 stays 0"):
        kl_control(4.0, 0.0)
