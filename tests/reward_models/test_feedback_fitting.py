"""A reward model learns the truth from rankings and from thumbs, too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from reward_models.feedback_fitting import fit_rankings, fit_thumbs, ranked_responses, thumbs_of
from reward_models.fitting import RewardModelConfig, order_accuracy
from reward_models.forms import Standard, gather
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
CONFIG = RewardModelConfig(epochs=2)


def sampled(prompts: int, seed: int) -> Responses:
    batch = prompts_of(TASK, TASK.fixed_prompts("train", prompts))
    generator = torch.Generator().manual_seed(seed)
    return LANGUAGE_MODEL.sample(batch, max_tokens=5, generator=generator, group_size=4).responses


RESPONSES = sampled(100, 0)
MATERIAL: Material = material_of(TASK, RESPONSES, prefixes=False)
CROWD = crowd_of(Rater("r", rationality=4.0), TASK.attribute_names)
RANKED_ITEMS = np.arange(400).reshape(100, 4)
SINGLE_ITEMS = np.arange(400)[:, None]


def accuracy(model: RewardModel) -> float:
    """Share of pairs of new responses that are put in their true order; 0.49 before anything is learned."""
    fresh = sampled(100, 9)
    score, truth = model(fresh).view(-1, 2), TASK.gold(fresh).utility.view(-1, 2)
    return order_accuracy(score[:, 0] - score[:, 1], truth[:, 0] - truth[:, 1])


def fresh_model() -> RewardModel:
    model = RewardModel.from_language_model(LANGUAGE_MODEL, torch.Generator().manual_seed(0))
    model.normalise(RESPONSES)
    return model


def test_rankings_teach_the_truth() -> None:
    feedback = gather("ranking", CROWD, MATERIAL, RANKED_ITEMS, np.random.default_rng(0))
    ranked = ranked_responses(feedback, RESPONSES, RANKED_ITEMS)
    assert (ranked.group_size, len(ranked.prompts)) == (4, 100)
    assert ranked.prompts.to_lists() == [RESPONSES.prompts.to_lists()[item] for item in feedback.item[::4]]
    utility = TASK.gold(ranked).utility.view(-1, 4)
    assert (utility[:, 0] > utility[:, -1]).float().mean() > 0.9
    model = fresh_model()
    losses = fit_rankings(model, ranked, dataclasses.replace(CONFIG, batch_size=4), torch.Generator().manual_seed(0))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert accuracy(model) > 0.75


def test_thumbs_teach_the_truth() -> None:
    standard = Standard(float(np.median(MATERIAL.utility)))
    feedback = gather("thumbs", CROWD, MATERIAL, SINGLE_ITEMS, np.random.default_rng(0), standard=standard)
    thumbs = thumbs_of(feedback, RESPONSES, SINGLE_ITEMS)
    torch.testing.assert_close(TASK.gold(thumbs.responses).utility, torch.from_numpy(feedback.utility))
    model = fresh_model()
    losses = fit_thumbs(model, thumbs, CONFIG, torch.Generator().manual_seed(0))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert accuracy(model) > 0.75


def test_what_was_skipped_is_left_out() -> None:
    feedback = gather("thumbs", CROWD, MATERIAL, SINGLE_ITEMS, np.random.default_rng(0))
    value = feedback.value.copy()
    value[10:] = np.nan
    some = dataclasses.replace(feedback, value=value)
    assert len(thumbs_of(some, RESPONSES, SINGLE_ITEMS).up) == 10
    with pytest.raises(TextenvError, match="no question of the feedback was answered by ranking"):
        ranked_responses(feedback, RESPONSES, SINGLE_ITEMS)
