"""The mean over neighbouring iterations."""

from __future__ import annotations

import numpy as np

from benchmarks.smoothing import moving_average, smoothing_window


def test_moving_average_is_centred_and_takes_what_there_is_at_the_ends() -> None:
    values = np.array([0.0, 3.0, 6.0, 0.0, 9.0])
    # over three at the ends, four beside them, all five in the middle
    np.testing.assert_allclose(moving_average(values, 5), [3.0, 2.25, 3.6, 4.5, 5.0])
    np.testing.assert_array_equal(moving_average(values, 1), values)
    assert [smoothing_window(count) for count in (0, 3, 4, 12, 70)] == [1, 1, 3, 5, 7]
