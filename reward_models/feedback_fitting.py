"""Learning a reward model from feedback that is no comparison: rankings, thumbs and scores.

Rankings are learned by the loss of Plackett and Luce, thumbs and scores by the cumulative logit model with two and
seven levels, whose cuts are learned along with the reward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reward_models.feedback import HIGHEST_SCORE, Feedback
from reward_models.fitting import FitResult, RewardModelConfig, measure
from reward_models.reward_model import RewardModel
from textenv.errors import TextenvError
from textenv.feedback_losses import ordinal_loss, plackett_luce_loss
from textenv.muon import MuonAdamW
from textenv.preferences import Preferences
from textenv.progress import Progress
from textenv.responses import Responses

CUT_RATE = 20.0
"""The cuts' learning rate as a multiple of the reward model's: there are six of them, and they lie some nats apart."""


class Given(NamedTuple):
    """n answers, skipped ones left out."""

    rows: Int[np.ndarray, "n k"]
    """The responses of each: the best first in a ranking, else one."""
    level: Int[np.ndarray, " n"]
    """0 for thumbs down and the lowest score, 1 for what is next; 0 of a ranking."""
    prompt: Int[np.ndarray, " n"]
    """Whose responses they are."""


def fit_feedback(
    model: RewardModel,
    feedback: Feedback,
    responses: Responses,
    items: Int[np.ndarray, "m k"],
    config: RewardModelConfig,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> FitResult:
    """Fits the model in place to what was said of most prompts' responses, and measures it on the others.

    Args:
        model: is changed; normalise it before and afterwards, as for `reward_models.fitting.fit`.
        feedback: of one form, as `reward_models.forms.gather` gives it.
        responses: what it is about.
        items: their rows, as `gather` took them.
        config: a step learns from as many responses as `batch_size` comparisons have.
        generator: draws the prompts that are held out, and the order.
        progress: told the steps done, their total, and the step's loss.

    Returns:
        Measurements on pairs of responses to held-out prompts, whose label is the order of what was said of them.

    Raises:
        TextenvError: nothing was answered, only one prompt's responses were judged, none that are held out were told
            apart, or the loss or its gradient is not finite.
    """
    answers = given(feedback, responses, items)
    prompts = np.unique(answers.prompt)
    if len(prompts) < 2:
        raise TextenvError("learning from feedback needs answers about two prompts at least; ask for more labels")
    count = min(len(prompts) - 1, max(1, round(config.held_out * len(prompts))))
    held_out = prompts[torch.randperm(len(prompts), generator=generator)[:count].numpy()]
    away = np.isin(answers.prompt, held_out)
    if feedback.form[0] == "ranking":
        loss, cuts = _ranking_loss(model, responses, answers.rows[~away])
    else:
        levels = 2 if feedback.form[0] == "thumbs" else HIGHEST_SCORE
        loss, cuts = _ordinal_loss(model, responses, answers.rows[~away, 0], answers.level[~away], levels)
    batch = max(1, round(2 * config.batch_size / answers.rows.shape[1]))
    losses = _learn(model, int((~away).sum()), batch, loss, cuts, config, generator, progress)
    return measure(model, implied(feedback, responses, items, held_out), losses)


def given(feedback: Feedback, responses: Responses, items: Int[np.ndarray, "m k"]) -> Given:
    """The answers of feedback of one form, as rows of the responses.

    Raises:
        TextenvError: every question was skipped.
    """
    answered = np.flatnonzero(~np.isnan(feedback.value))
    if len(answered) == 0:
        raise TextenvError("the raters skipped every question, so there is nothing to learn from; lower their `skip`")
    row, value = items[feedback.item[answered], feedback.response[answered]], feedback.value[answered]
    if feedback.form[0] == "ranking":
        order = np.lexsort((value, feedback.question[answered]))
        rows, level = row[order].reshape(-1, items.shape[1]), np.zeros(len(row) // items.shape[1], dtype=np.int64)
    else:
        lowest = 0 if feedback.form[0] == "thumbs" else 1
        rows, level = row[:, None], value.astype(np.int64) - lowest
    return Given(rows, level, rows[:, 0] // responses.group_size)


def implied(
    feedback: Feedback, responses: Responses, items: Int[np.ndarray, "m k"], prompts: Int[np.ndarray, " p"]
) -> Preferences:
    """All pairs of responses to some prompts, in the order of what was said of them on average; 0.5 where it is equal.

    Raises:
        TextenvError: no prompt has two different responses of which something was said.
    """
    row = items[feedback.item, feedback.response]
    answered: Bool[np.ndarray, " n"] = ~np.isnan(feedback.value)
    rows, place = np.unique(row[answered], return_inverse=True)
    sign = -1 if feedback.form[0] == "ranking" else 1  # The first rank is the best.
    value = sign * np.bincount(place, feedback.value[answered]) / np.bincount(place)
    utility = np.bincount(place, feedback.utility[answered]) / np.bincount(place)
    texts = responses.to_lists()
    of_prompt = rows // responses.group_size
    pairs = [
        pair
        for prompt in prompts
        for pair in combinations(np.flatnonzero(of_prompt == prompt).tolist(), 2)
        if texts[rows[pair[0]]] != texts[rows[pair[1]]]
    ]
    if not pairs:
        raise TextenvError("no held-out prompt has two different responses that were judged; ask for more labels")
    first, second = np.array(pairs).T
    n = len(pairs)
    shown_first, shown_second = (
        Responses(responses.prompts[chosen // responses.group_size], responses.ids[chosen], responses.mask[chosen])
        for chosen in (torch.from_numpy(rows[side]) for side in (first, second))
    )
    return Preferences(
        shown_first,
        shown_second,
        label=torch.from_numpy((1 + np.sign(value[first] - value[second])) / 2).float(),
        rater=[str(feedback.form[0])] * n,
        session_time=torch.zeros(n, dtype=torch.float64),
        utility=torch.from_numpy(np.stack([utility[first], utility[second]], axis=1)).float(),
        probability=torch.full((n,), math.nan),
    )


Loss = Callable[[Int[Tensor, " b"]], Float[Tensor, ""]]
"""Of some answers, by their numbers."""


def _ranking_loss(model: RewardModel, responses: Responses, rows: Int[np.ndarray, "n k"]) -> tuple[Loss, list[Tensor]]:
    k = rows.shape[1]
    flat = torch.from_numpy(rows.ravel())
    prompts = responses.prompts[torch.from_numpy(rows[:, 0]) // responses.group_size]
    ranked = Responses(prompts, responses.ids[flat], responses.mask[flat])
    return lambda some: plackett_luce_loss(model.scores(ranked.groups(some)).view(-1, k)), []


def _ordinal_loss(
    model: RewardModel, responses: Responses, rows: Int[np.ndarray, " n"], level: Int[np.ndarray, " n"], levels: int
) -> tuple[Loss, list[Tensor]]:
    """The loss, and the parameters of its cuts: the first one, and the logarithms of the gaps between them."""
    place, said = torch.from_numpy(rows), torch.from_numpy(level)
    judged = Responses(responses.prompts[place // responses.group_size], responses.ids[place], responses.mask[place])
    # They start where responses that are all alike would have them, with one answer more at each level.
    below = np.cumsum(np.bincount(level, minlength=levels) + 1)[:-1] / (len(level) + levels)
    start = torch.from_numpy(np.log(below / (1 - below))).float()
    first, gaps = start[:1].clone().requires_grad_(), start.diff().log().requires_grad_()

    def loss(some: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        cuts = torch.cat([first, first + gaps.exp().cumsum(0)])
        return ordinal_loss(model.scores(judged.groups(some)), said[some], cuts)

    return loss, [first, gaps]


def _learn(
    model: RewardModel,
    count: int,
    batch: int,
    loss_of: Loss,
    cuts: list[Tensor],
    config: RewardModelConfig,
    generator: torch.Generator,
    progress: Progress | None,
) -> list[float]:
    """Takes a step a batch, at a rate that falls linearly to 0, as `reward_models.fitting.fit` does."""
    optimizer = MuonAdamW(model.model, weight_decay=config.weight_decay)
    cut_optimizer = torch.optim.Adam(cuts) if cuts else None
    steps = config.epochs * math.ceil(count / batch)
    losses: list[float] = []
    for _ in range(config.epochs):
        for rows in torch.randperm(count, generator=generator).split(batch):
            loss = loss_of(rows)
            rate = config.learning_rate * (1 - len(losses) / steps)
            norm = optimizer.step(loss, rate, config.max_grad_norm)
            if not bool(torch.isfinite(loss + norm)):
                raise TextenvError(
                    f"the reward model's loss became {loss.item():g} (gradient norm {norm.item():g}) at step "
                    f"{len(losses) + 1} of {steps}; use a lower learning rate than {config.learning_rate:g}"
                )
            if cut_optimizer is not None:
                cut_optimizer.param_groups[0]["lr"] = CUT_RATE * rate
                cut_optimizer.step()
                cut_optimizer.zero_grad()
            losses.append(loss.item())
            if progress is not None:
                progress(len(losses), steps, {"loss": losses[-1]})
    return losses
