"""The table of where a stock agent comes to rest."""

import pytest

from benchmarks import fixed_point
from benchmarks.fixed_point import FixedPointConfig


@pytest.fixture(scope="module")
def table():
    return fixed_point.rows(FixedPointConfig((0.1, 1.0)))


def test_the_stock_agent_falls_behind_as_beta_grows(table):
    low, high = table
    assert 0.95 < low.share < 1
    # At β = 1 it is worth less than the reference: it stops to save what tokens cost.
    assert high.share < 0
    assert high.stock.length < high.best.length - 1
    assert high.stock.eos_rate > high.best.eos_rate
    for row in table:
        assert row.stock.objective < row.best.objective
        assert 0 <= row.stock.eos_rate <= 1 <= row.stock.length <= 5


def test_the_figures_are_those_of_the_enumeration(table):
    (row,) = fixed_point.rows(FixedPointConfig((0.45,)))
    assert row.best.objective == pytest.approx(3.508, abs=1e-3)
    assert row.best.kl == pytest.approx(1.166, abs=1e-3)
    assert row.stock.objective == pytest.approx(3.445, abs=1e-3)
    assert row.stock.kl == pytest.approx(1.199, abs=1e-3)


def test_it_prints_markdown(capsys):
    assert fixed_point.main(["--betas", "0.45"]) == 0
    assert "| 0.45 | 3.445 (3.508) | 0.93 | 1.20 (1.17) |" in capsys.readouterr().out
