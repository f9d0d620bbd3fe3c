"""What is shipped keeps what the world promises."""

import numpy as np
import pytest

from benchmarks.world import checks
from benchmarks.world.__main__ import embedded_tasks
from textenv import models
from textenv.world.grammar import DEMONSTRATIONS, INTERNET


def failed(results: list[checks.Check]) -> list[checks.Check]:
    assert results
    return [check for check in results if not check.passed]


def test_a_check_fails_outside_its_range_and_on_nan():
    assert checks.Check("a", 1.0, 0.0, 1.0).passed
    assert not checks.Check("a", 1.1, 0.0, 1.0).passed
    assert not checks.Check("a", float("nan"), 0.0, 1.0).passed


@pytest.mark.parametrize("task", embedded_tasks(), ids=lambda task: task.name)
def test_each_task_has_something_to_learn_and_a_kl_that_matters(task):
    assert failed(checks.task_checks(task)) == []


def test_concierge_has_no_cheap_trap():
    assert failed(checks.concierge_checks()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "personas"), [("concierge-pretrained", INTERNET), ("concierge", DEMONSTRATIONS)])
def test_the_concierges_models_know_the_grammar(name, personas):
    assert failed(checks.model_checks(models.load(name), personas, np.random.default_rng(1))) == []


@pytest.mark.slow
def test_the_worlds_model_knows_every_task():
    results = checks.world_checks(models.load("world"), embedded_tasks(), np.random.default_rng(1))
    assert failed(results) == []
