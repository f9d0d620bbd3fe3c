"""How soon a run came to half of the optimum, and to 0.8 of it.

Known along the way is the share on each iteration's fresh training prompts, by the J_ref and J* of the test
prompts. It is noisy: one iteration of 64 responses had a standard deviation of 0.11 on Exact and 0.04 to 0.1 on
Concierge, since its prompts differ. Over the last tenth of two runs of 200,000 tokens on Concierge it lay within 0.02
of the share on the test prompts. A level counts as reached at the first iteration at which the mean of the nine around
it is at least as high, so a curve that rises slowly is said to arrive a little early; or else at the end, if the share
on the test prompts is as high. The end is all that is known of agents that answer no prompts while they learn, such
as DPO: for them the numbers are those of the whole run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.smoothing import moving_average
from benchmarks.suite.rows import Row

LEVELS = {"50": 0.5, "80": 0.8}
"""By the ends of the columns' names."""
NEIGHBOURS = 4
"""Iterations on either side that the mean takes in; fewer of a short run."""


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
    half = min(NEIGHBOURS, len(shares) // 4)
    smooth = moving_average(shares, 2 * half + 1)
    smooth[:half] = -np.inf  # Their neighbours are later ones for the most part, which are better.
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
