"""Learning a reward model from rankings, by Plackett and Luce's loss, or from thumbs, by logistic regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reward_models.feedback import Feedback
from reward_models.fitting import RewardModelConfig
from reward_models.reward_model import RewardModel
from textenv.errors import TextenvError
from textenv.feedback_losses import plackett_luce_loss, thumbs_loss
from textenv.muon import MuonAdamW
from textenv.responses import Responses


class Thumbs(NamedTuple):
    """n responses and what was said of each."""

    responses: Responses
    """One (k = 1) to each of n prompts."""
    up: Float[Tensor, " n"]
    """1 for thumbs up, 0 for thumbs down."""


def ranked_responses(feedback: Feedback, responses: Responses, items: Int[np.ndarray, "m k"]) -> Responses:
    """The responses of each ranking, the best first; skipped questions are left out.

    Args:
        feedback: rankings.
        responses: what was ranked.
        items: rows of the responses, as `reward_models.forms.gather` took them.

    Raises:
        TextenvError: no question was answered by a ranking.
    """
    rows = _rows(feedback, "ranking")
    k = items.shape[1]
    order = np.lexsort((feedback.value[rows], feedback.question[rows]))
    place = torch.from_numpy(items[feedback.item[rows], feedback.response[rows]][order])
    prompts = responses.prompts[place[::k] // responses.group_size]
    return Responses(prompts, responses.ids[place], responses.mask[place])


def thumbs_of(feedback: Feedback, responses: Responses, items: Int[np.ndarray, "m 1"]) -> Thumbs:
    """The responses that got thumbs; skipped questions are left out.

    Args:
        feedback: thumbs.
        responses: what was approved or not.
        items: rows of the responses, as `reward_models.forms.gather` took them.

    Raises:
        TextenvError: no question was answered by thumbs.
    """
    rows = _rows(feedback, "thumbs")
    place = torch.from_numpy(items[feedback.item[rows], 0])
    prompts = responses.prompts[place // responses.group_size]
    up = torch.from_numpy(feedback.value[rows])
    return Thumbs(Responses(prompts, responses.ids[place], responses.mask[place]), up)


def _rows(feedback: Feedback, form: str) -> Int[np.ndarray, " n"]:
    rows = np.flatnonzero((feedback.form == form) & ~np.isnan(feedback.value))
    if len(rows) == 0:
        raise TextenvError(f"no question of the feedback was answered by {form}, so there is nothing to learn from")
    return rows


def fit_rankings(
    model: RewardModel, ranked: Responses, config: RewardModelConfig, generator: torch.Generator
) -> list[float]:
    """Fits the model in place to rankings; nothing is held out.

    Args:
        model: is changed; normalise it before and afterwards, as for `reward_models.fitting.fit`.
        ranked: k ≥ 2 responses to each of n prompts, the best first.
        config: `batch_size` counts rankings, and `held_out` is not used.
        generator: draws the order.

    Returns:
        The loss of each step's batch, before the step.

    Raises:
        TextenvError: the loss or its gradient is not finite.
    """
    k = ranked.group_size

    def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        return plackett_luce_loss(model.scores(ranked.groups(rows)).view(-1, k))

    return _learn(model, len(ranked.prompts), loss, config, generator)


def fit_thumbs(
    model: RewardModel, thumbs: Thumbs, config: RewardModelConfig, generator: torch.Generator
) -> list[float]:
    """Fits the model in place to thumbs; nothing is held out. Arguments and errors as for `fit_rankings`."""

    def loss(rows: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        return thumbs_loss(model.scores(thumbs.responses.groups(rows)), thumbs.up[rows])

    return _learn(model, len(thumbs.up), loss, config, generator)


def _learn(
    model: RewardModel,
    count: int,
    loss_of: Callable[[Int[Tensor, " b"]], Float[Tensor, ""]],
    config: RewardModelConfig,
    generator: torch.Generator,
) -> list[float]:
    """Takes a step a batch, at a rate that falls linearly to 0, as `reward_models.fitting.fit` does."""
    optimizer = MuonAdamW(model.model, weight_decay=config.weight_decay)
    steps = config.epochs * math.ceil(count / config.batch_size)
    losses: list[float] = []
    for _ in range(config.epochs):
        for rows in torch.randperm(count, generator=generator).split(config.batch_size):
            loss = loss_of(rows)
            norm = optimizer.step(loss, config.learning_rate * (1 - len(losses) / steps), config.max_grad_norm)
            if not bool(torch.isfinite(loss + norm)):
                raise TextenvError(
                    f"the reward model's loss became {loss.item():g} (gradient norm {norm.item():g}) at step "
                    f"{len(losses) + 1} of {steps}; use a lower learning rate than {config.learning_rate:g}"
                )
            losses.append(loss.item())
    return losses
