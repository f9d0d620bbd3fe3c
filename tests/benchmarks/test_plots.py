from __future__ import annotations

import numpy as np
import pytest

from benchmarks import plots


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662 and 0 of 20 gives 0 to 0.1611
    low, high = plots.wilson_interval(np.array([81 / 263, 0.0]), np.array([263.0, 20.0]), z=1.959964)
    np.testing.assert_allclose(low, [0.2553, 0.0], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1611], atol=5e-5)


def test_a_picture_follows_the_page_and_says_what_it_shows() -> None:
    figure = plots.curve(
        np.array([0.0, 1.0, np.nan]), np.array([0.2, 0.4, 0.5]), xlabel="KL (nats an episode)", ylabel="a < b",
        colour=plots.TRUTH, marks=[plots.Mark(0.5, 0.3, filled=True)],
    )  # fmt: skip
    text = plots.svg(figure, "gold-kl", 'Gold "against" KL')
    assert text.startswith("<svg viewBox=")
    assert 'aria-label="Gold &quot;against&quot; KL"' in text
    assert f"var(--truth, {plots.TRUTH})" in text
    assert "KL (nats an episode)" in text
    assert "a &lt; b" in text
    assert "DejaVu" not in text
    assert "http" not in text
    assert plots.svg(figure, "gold-kl", 'Gold "against" KL') == text


@pytest.mark.parametrize(("lowest", "start"), [(0.5, 0.48), (0.1, -0.02)])
def test_calibration_shows_the_half_of_the_axis_that_is_used(lowest: float, start: float) -> None:
    bins = [plots.Bin(lowest, 0.6, 10), plots.Bin(0.7, 0.8, 0), plots.Bin(0.95, 0.9, 40)]
    top, bottom = plots.calibration(bins).axes
    assert top.get_xlim()[0] == pytest.approx(start)
    assert len(bottom.patches) == 2
