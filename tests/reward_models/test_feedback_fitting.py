"""A reward model learns the truth from rankings, thumbs and scores, too."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest
import torch

from reward_models.feedback_fitting import fit_feedback, given, implied
from reward_models.fitting import RewardModelConfig, order_accuracy
from reward_models.forms import gather
from reward_models.raters import Rater
from reward_models.raters.crowd import crowd_of
from reward_models.raters.material import Material, material_of
from reward_models.reward_model import RewardModel
from textenv import models, tasks
from textenv.errors import TextenvError
from textenv.responses import Responses
from textenv.tasks.base import prompts_of

TASK = tasks.load("exact")
LANGUAGE_MODEL = models.load("exact")
CONFIG = RewardModelConfig(epochs=4, batch_size=8)


def sampled(prompts: int, seed: int) -> Responses:
    batch = prompts_of(TASK, TASK.fixed_prompts("train", prompts))
    generator = torch.Generator().manual_seed(seed)
    return LANGUAGE_MODEL.sample(batch, max_tokens=5, generator=generator, group_size=4).responses


RESPONSES = sampled(100, 0)
MATERIAL: Material = material_of(TASK, RESPONSES, prefixes=False)
CROWD = crowd_of(Rater("r", rationality=4.0), TASK.attribute_names)
RANKED_ITEMS = np.arange(400).reshape(100, 4)
SINGLE_ITEMS = np.arange(400)[:, None]


def said(form: Literal["ranking", "thumbs", "score"], **changed: Any) -> Any:
    items = RANKED_ITEMS if form == "ranking" else SINGLE_ITEMS
    feedback = gather(form, CROWD, MATERIAL, items, np.random.default_rng(0))
    return dataclasses.replace(feedback, **changed), items


def accuracy(model: RewardModel) -> float:
    """Share of pairs of new responses that are put in their true order; 0.49 before anything is learned."""
    fresh = sampled(100, 9)
    score, truth = model(fresh).view(-1, 2), TASK.gold(fresh).utility.view(-1, 2)
    return order_accuracy(score[:, 0] - score[:, 1], truth[:, 0] - truth[:, 1])


@pytest.mark.parametrize("form", ["ranking", "thumbs", "score"])
def test_each_form_teaches_the_truth(form: Literal["ranking", "thumbs", "score"]) -> None:
    model = RewardModel.from_language_model(LANGUAGE_MODEL, torch.Generator().manual_seed(4))
    model.normalise(RESPONSES)
    feedback, items = said(form)
    steps: list[int] = []
    result = fit_feedback(
        model, feedback, RESPONSES, items, CONFIG, torch.Generator().manual_seed(4), lambda done, *_: steps.append(done)
    )
    assert steps == list(range(1, len(result.losses) + 1))
    assert np.mean(result.losses[-5:]) < np.mean(result.losses[:5])
    assert result.held_out > 20
    assert result.accuracy_true > 0.7
    assert result.ceiling_labels > 0.9  # What was said of held-out responses is nearly the true order.
    assert accuracy(model) > 0.74


def test_rankings_are_read_the_best_first() -> None:
    feedback, items = said("ranking")
    answers = given(feedback, RESPONSES, items)
    assert answers.rows.shape == (100, 4)
    assert (answers.rows // 4 == answers.prompt[:, None]).all()
    first = feedback.question == 0
    in_order = feedback.item[first] * 4 + feedback.response[first][np.argsort(feedback.value[first])]
    np.testing.assert_array_equal(answers.rows[0], items.ravel()[in_order])


def test_pairs_are_in_the_order_of_what_was_said_on_average() -> None:
    # Two people score the four responses to the first prompt: 3, 5, 5 and nothing; 5, 4, 4 and nothing.
    feedback, items = said("score")
    rows = np.tile(np.arange(4), 2)
    some = dataclasses.replace(
        feedback, **{name: column[:8] for name, column in feedback.columns().items()},
    )  # fmt: skip
    value = np.array([3, 5, 5, np.nan, 5, 4, 4, np.nan], dtype=np.float32)
    some = dataclasses.replace(some, item=rows, response=np.zeros(8, dtype=np.int64), value=value,
                               utility=np.arange(8, dtype=np.float32) % 4)  # fmt: skip
    texts = Responses.from_lists(RESPONSES.prompts[:1], [[1], [2], [3], [4]], 0)
    pairs = implied(some, texts, items, np.array([0]))
    # 4 against 4.5, 4 against 4.5, and 4.5 twice.
    assert pairs.label.tolist() == [0.0, 0.0, 0.5]
    assert pairs.utility.tolist() == [[0, 1], [0, 2], [1, 2]]
    with pytest.raises(TextenvError, match="no held-out prompt has two different responses"):
        implied(some, texts, items, np.array([1]))


def test_what_was_skipped_is_left_out() -> None:
    feedback, items = said("thumbs")
    value = feedback.value.copy()
    value[10:] = np.nan
    assert len(given(dataclasses.replace(feedback, value=value), RESPONSES, items).level) == 10
    nothing = dataclasses.replace(feedback, value=np.full_like(value, np.nan))
    with pytest.raises(TextenvError, match="the raters skipped every question"):
        given(nothing, RESPONSES, items)
