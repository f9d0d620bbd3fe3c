"""The verdicts: the gain on held-out prompts against that on test prompts, and the gain on other tasks against none."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import statistics
from benchmarks.experiments import Verdict
from benchmarks.suite.frames import Frames, Level, by_stratum, said
from benchmarks.suite.rows import Row

STRATUM = ("agent", "task", "rater")


def judge(frames: Frames) -> Sequence[Verdict]:
    """One verdict an agent and learned task for held-out prompts, and one for each other task tried."""
    rows = [row for row in frames.transfer if row["gain"] is not None]
    places = sorted({(row["agent"], row["task"], row["on_task"], row["split"]) for row in rows})
    asked = [place for place in places if place[2] != place[1] or place[3] == "heldout"]
    level = 1 - 0.05 / max(1, len(asked))
    verdicts = []
    for agent, task, on_task, split in asked:
        mine = [row for row in rows if (row["agent"], row["task"]) == (agent, task)]
        tried = _gains([row for row in mine if (row["on_task"], row["split"]) == (on_task, split)])
        if on_task == task:
            other = _gains([row for row in mine if (row["on_task"], row["split"]) == (task, "test")])
            what = f"{agent}: gold gained on held-out prompts of {task} against that on its test prompts"
        else:
            other = {stratum: dict.fromkeys(scores, 0.0) for stratum, scores in tried.items()}
            what = f"{agent}: gold on {on_task} after learning {task} against the reference"
        strata = sorted(tried.keys() & other.keys())
        compared = statistics.compare([tried[s] for s in strata], [other[s] for s in strata], level=level)
        verdicts.append(said(what, compared))
    return verdicts


def _gains(rows: Sequence[Row]) -> dict[tuple[str, ...], Level]:
    return by_stratum(rows, STRATUM, "gain")
