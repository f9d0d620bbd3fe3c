"""Each folder under benchmarks/experiments is an experiment that can be planned."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from agents import AGENTS
from benchmarks import experiments
from benchmarks.suite import sweep
from benchmarks.suite.rows import RUNS
from benchmarks.suite.run_cell import _relatives
from reward_models.raters import RATERS
from textenv import tasks
from textenv.errors import UsageError
from textenv.tasks import TASKS


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
    raters = 1 if experiment.labels_needed else len(experiment.preset.get("raters", ("gold", "bradley-terry")))
    settings = {cell.settings for cell in plan.cells}
    assert len({cell.id for cell in plan.cells}) == len(plan.cells) == raters * len(settings) * len(experiment.variants)
    assert {cell.variant for cell in plan.cells} == set(experiment.variants)


def test_the_sweep_for_the_defaults_moves_one_factor_at_a_time_from_them() -> None:
    plan = sweep.plan(["defaults"], "quick", {"seeds": 1})
    for agent in ("ppo", "a2c", "rloo", "grpo"):
        default, *moved = [cell for cell in plan.cells if cell.config["agent"] == agent]
        assert default.settings == ""
        assert len(moved) >= 6
        for cell in moved:
            changed = {name: value for name, value in cell.config.items() if value != default.config[name]}
            assert cell.settings
            assert changed
            assert {"n_prompts", "group_size"} >= changed.keys() or len(changed) == 1
    assert {cell.config["tokens"] for cell in plan.cells} == {40_000}


def test_all_algorithms_are_run_on_all_tasks_each_with_what_it_learns_from() -> None:
    plan = sweep.plan(["algorithms"], "quick", {"seeds": 1})
    assert {(cell.config["agent"], cell.config["task"]) for cell in plan.cells} == set(itertools.product(AGENTS, TASKS))
    assert not plan.left_out
    judged = {cell.config["agent"]: (cell.rater, cell.config["reward"], cell.config["rater"]) for cell in plan.cells}
    assert judged["ppo"] == ("gold", "gold", "bradley-terry")  # The last is not asked.
    assert judged["dpo"] == ("gold", "learned", "oracle")
    assert judged["sft"] == ("gold", "learned", "bradley-terry")


def test_generalisation_is_asked_of_tasks_that_have_others_of_their_reference() -> None:
    plan = sweep.plan(["generalisation"], "quick", {"seeds": 1, "agents": ["ppo"]})
    for name in {cell.config["task"] for cell in plan.cells}:
        assert len(_relatives(tasks.load(name))) == 3


def test_raters_are_compared_over_all_that_there_are() -> None:
    plan = sweep.plan(["raters"], "quick", {"seeds": 1, "agents": ["ppo"], "tasks": ["exact"]})
    assert {cell.rater for cell in plan.cells} == {"gold", *RATERS}


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown experiment 'leader'\. Did you mean 'leaderboard'"):
        experiments.load("leader")
