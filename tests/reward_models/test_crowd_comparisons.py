"""Comparisons by several raters become one preference a pair, and everybody's answers are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reward_models.asking import Asking
from reward_models.comparisons import LabelBudget, compare
from reward_models.crowd_comparisons import Collected, collect, crowd_for
from reward_models.raters import Rater
from reward_models.raters.material import material_of
from reward_models.raters.population import Group, Population
from textenv import models, tasks
from textenv.errors import TextenvError, UsageError
from textenv.responses import Responses
from textenv.tasks.base import prompts_of

TASK = tasks.load("exact")
LANGUAGE_MODEL = models.load("exact")


def sampled(prompts: int = 8) -> Responses:
    batch = prompts_of(TASK, TASK.fixed_prompts("train", prompts))
    generator = torch.Generator().manual_seed(0)
    return LANGUAGE_MODEL.sample(batch, max_tokens=5, generator=generator, group_size=4).responses


RESPONSES = sampled()


def gather(rater: Any, labels: int = 60, seed: int = 0, **how: Any) -> Collected:
    return collect(rater, TASK, RESPONSES, LabelBudget(labels), np.random.default_rng(seed), **how)


def test_a_rater_asked_itself_answers_as_before() -> None:
    rater = Rater("bt", rationality=2.0)
    preferences, labels, *_ = gather(rater, 30)
    utility = TASK.gold(RESPONSES).utility
    expected = compare(RESPONSES, utility, rater, LabelBudget(30), np.random.default_rng(0))
    assert labels is None
    assert torch.equal(preferences.label, expected.label)
    assert torch.equal(preferences.utility, expected.utility)
    assert preferences.first.to_lists() == expected.first.to_lists()


def test_each_pair_has_the_mean_of_its_labels() -> None:
    preferences, labels, *_ = gather(Rater("bt", rationality=0.5), 60, asking=Asking(3))
    assert labels is not None
    assert len(labels) == 60
    assert len(preferences) == 20
    assert set(labels.rater) == {"bt-0", "bt-1", "bt-2"}
    means = labels.item_label.reshape(20, 3).mean(axis=1)
    np.testing.assert_allclose(preferences.label.numpy(), means, rtol=1e-6)
    assert {0.0, 1.0} < {round(float(label), 3) for label in preferences.label}
    # Utilities and probabilities belong to the responses as they stand in the preference.
    for side, responses in enumerate((preferences.first, preferences.second)):
        torch.testing.assert_close(preferences.utility[:, side], TASK.gold(responses).utility)
    difference = preferences.utility[:, 0] - preferences.utility[:, 1]
    torch.testing.assert_close(preferences.probability, (0.5 * difference).sigmoid())
    assert set(preferences.rater) == {"bt"}


def test_what_everybody_skips_is_left_out() -> None:
    utility = TASK.gold(RESPONSES).utility
    threshold = float(utility.median())
    preferences, labels, *_ = gather(Rater("picky", traits={"skip": threshold}), 60, asking=Asking(2))
    assert labels is not None
    assert 0 < len(preferences) < 30
    assert (preferences.utility.max(dim=1).values > threshold - 1e-6).all()
    with pytest.raises(TextenvError, match="the raters skipped every pair"):
        gather(Rater("picky", traits={"skip": 99.0}))


def test_a_populations_own_budget_holds_too() -> None:
    group = Group("g", cost=1.0)
    assert len(gather(Population("p", [group], raters=4, labels=20), 60, asking=Asking(2)).labels or []) == 20
    assert len(gather(Population("p", [group], raters=4, money=15.0), 60, asking=Asking(2)).labels or []) == 15


def test_beginnings_are_judged_only_where_somebody_reads_them() -> None:
    material = material_of(TASK, RESPONSES, prefixes=True)
    assert material.prefixes is not None
    assert material.prefixes.shape == (len(RESPONSES), 6, 3)
    np.testing.assert_array_equal(material.prefixes[:, -1], material.attributes)
    lengths = RESPONSES.lengths.numpy()
    np.testing.assert_array_equal(material.prefixes[np.arange(len(lengths)), lengths], material.attributes)
    assert material_of(TASK, RESPONSES, prefixes=False).prefixes is None
    np.testing.assert_allclose(material.utility, TASK.gold(RESPONSES).utility, rtol=1e-5)
    # Who reads nothing tosses a coin between all responses to a prompt.
    preferences, *_ = gather(Rater("blind", traits={"reads": 0}))
    assert set(preferences.probability.tolist()) == {0.5}


def test_a_task_without_weights_has_its_utility_alone() -> None:
    class Opaque:
        name = "opaque"
        attribute_names = ("a", "b", "c")

        def gold(self, responses: Responses) -> Any:
            return TASK.gold(responses)

    material = material_of(Opaque(), RESPONSES, prefixes=False)  # type: ignore[arg-type]
    assert material.attribute_names == ("utility",)
    np.testing.assert_allclose(material.utility, TASK.gold(RESPONSES).utility)


def test_what_is_known_or_estimated_of_people_counts_in_what_their_answers_come_to() -> None:
    """Two liars and a truthful person: the majority is mostly wrong, and questions with known answers tell."""
    liars, honest = Group("liars", share=2.0, traits={"mistake": 1.0}), Group("honest")
    people = Population("p", [liars, honest], raters=3, recruiting="stratified")

    def right(asking: Asking) -> float:
        preferences, *_ = gather(people, 90, asking=asking)
        difference = preferences.utility[:, 0] - preferences.utility[:, 1]
        decided = difference != 0
        return float(((preferences.label > 0.5) == (difference > 0))[decided].float().mean())

    assert right(Asking(3, "majority")) == 0
    for method in ("gold", "dawid-skene", "crowd-bt"):
        assert right(Asking(3, method, gold_rate=0.3)) == 1, method


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"raters_per_item": 0}, "raters_per_item is 0, expected 1 or more"),
        ({"consensus": "dawid"}, "Did you mean 'dawid-skene'"),
        ({"gold_rate": 1.5}, r"gold_rate is 1.5, expected a number in \[0, 1\]"),
        ({"consensus": "gold"}, "raise gold_rate above 0"),
    ],
)
def test_asking_that_makes_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Asking(**settings)


def test_who_cannot_be_asked() -> None:
    class Own(Rater):
        def perceive(self, responses: Responses, utility: Any) -> Any:
            return utility

    rng = np.random.default_rng(0)
    assert crowd_for(Own("own"), TASK, Asking(), rng) is None
    with pytest.raises(UsageError, match=r"'own' has methods .* leave out raters_per_item, gold_rate, or describe"):
        crowd_for(Own("own"), TASK, Asking(2, gold_rate=0.1), rng)
    with pytest.raises(UsageError, match="by 3 raters, but the population 'p' gives 2; raise `raters` in its file"):
        crowd_for(Population("p", [Group("g")], raters=2), TASK, Asking(3), rng)
    with pytest.raises(UsageError, match="the task has no attribute non_sycophantic; it has answer, frame, ended"):
        crowd_for(Rater("r", traits={"sycophancy": 1.0}), TASK, Asking(), rng)
