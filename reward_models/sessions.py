"""The raters' simulated time: how long an answer takes, and when people rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

SECONDS_PER_TOKEN = 60 / 238
"""Silent reading of English at 238 words a minute (Brysbaert 2019), a token taken as a word."""
SECONDS_PER_DECISION = 2.0
"""Time to make up one's mind and click: our assumption; nothing but simulated time depends on it."""


class Sessions(NamedTuple):
    """When n answers came."""

    session: Int[np.ndarray, " n"]
    """Number of the rater's session, from 0."""
    session_time: Float[np.ndarray, " n"]
    """Seconds for which it had lasted when the answer came."""
    worked: Float[np.ndarray, " n"]
    """Seconds that the rater had worked in all."""


def sessions(rater: Int[np.ndarray, " n"], seconds: Float[np.ndarray, " n"], session_seconds: float) -> Sessions:
    """Lets everybody answer one question after the other and rest after `session_seconds` of work.

    Whoever is at a question when the time is over finishes it; the next session is as much shorter.

    Args:
        rater: who answers each question, in the order in which they are asked.
        seconds: how long each takes.
        session_seconds: after how long people rest.
    """
    order = np.argsort(rater, kind="stable")
    total = np.cumsum(seconds[order])
    first = np.flatnonzero(np.diff(rater[order], prepend=-1))
    counts = np.diff(first, append=len(rater))
    before = np.concatenate([[0.0], total])[first]
    worked = np.empty(len(rater))
    worked[order] = total - np.repeat(before, counts)
    session = np.floor((worked - seconds) / session_seconds + 1e-9).astype(np.int32)
    return Sessions(session, worked - session * session_seconds, worked)
