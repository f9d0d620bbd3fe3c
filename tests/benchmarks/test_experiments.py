"""Each folder under benchmarks/experiments is an experiment that can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import experiments
from benchmarks.suite import sweep
from benchmarks.suite.rows import RUNS
from textenv.errors import UsageError


def test_the_folders_are_the_experiments() -> None:
    here = Path(experiments.__file__).parent
    folders = {file.parent.name for file in here.glob("*/__init__.py")}
    assert set(experiments.names()) == folders
    assert "leaderboard" in folders


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_can_be_planned(name: str) -> None:
    experiment = experiments.load(name)
    assert experiment.metric in RUNS
    assert experiment.question.endswith("?")
    plan = sweep.plan([name], "quick", {"seeds": 1, "tasks": ["exact"], "agents": ["ppo"]})
    raters = 1 if experiment.labels_needed else 2
    assert len(plan.cells) == raters * len(experiment.variants)
    assert {cell.variant for cell in plan.cells} == set(experiment.variants)


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown experiment 'leader'\. Did you mean 'leaderboard'"):
        experiments.load("leader")
