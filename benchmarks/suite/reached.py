"""How soon a run came to half of the optimum, and to 0.8 of it.

Known along the way is the share on each iteration's fresh training prompts, by the J_ref and J* of the test
prompts: noisy, and off by what the two sets of prompts differ in, which is little (over the last tenth of two
runs of 200,000 tokens on Concierge it lay within 0.02 of the share on the test prompts). A level counts as reached
at the first iteration at which the mean of a tenth of the run's iterations around it is at least as high, or else
at the end, if the share on the test prompts is. The end is all that is known of agents that answer no prompts
while they learn, such as DPO: for them the numbers are those of the whole run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.smoothing import moving_average, smoothing_window
from benchmarks.suite.rows import Row

LEVELS = {"50": 0.5, "80": 0.8}
"""By the ends of the columns' names."""


def reached(curve: Sequence[Row], share: float | None, tokens: int, seconds: float) -> Row:
    """The columns `tokens_to_…` and `seconds_to_…` of a run; None where a level was never reached.

    Args:
        curve: the run's rows of `curves`, in the order of iterations.
        share: of the optimum on the test prompts, at the end.
        tokens: learned from, at the end.
        seconds: since the run began, when the agent had learned.
    """
    known = [row for row in curve if row.get("share") is not None]
    shares = np.array([row["share"] for row in known], dtype=float)
    smooth = moving_average(shares, smoothing_window(len(shares)))
    columns: Row = {}
    for name, level in LEVELS.items():
        there = np.flatnonzero(smooth >= level)
        at: tuple[float | None, float | None] = (None, None)
        if len(there):
            at = known[there[0]]["tokens"], known[there[0]]["seconds"]
        elif share is not None and share >= level:
            at = tokens, seconds
        columns |= {f"tokens_to_{name}": at[0], f"seconds_to_{name}": at[1]}
    return columns
