"""Comparisons by several raters: each pair is answered by different people, and their labels become one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reward_models.asking import PLAINLY, Asking, excluded
from reward_models.calibration import trained
from reward_models.comparisons import LabelBudget, compare, random_pairs
from reward_models.consensus import consensus
from reward_models.labels import Labels
from reward_models.raters.crowd import Crowd, crowd_of
from reward_models.raters.material import material_of, rated_attributes, sycophancy_place
from reward_models.raters.population import Population
from reward_models.raters.rater import Compares, Rater
from reward_models.raters.utility import Sycophancy
from reward_models.response_consensus import response_consensus
from reward_models.surveys import survey
from textenv.errors import TextenvError, UsageError
from textenv.preferences import Preferences
from textenv.responses import Responses
from textenv.tasks.base import Task


class Collected(NamedTuple):
    """What a rater's or several raters' comparisons came to."""

    preferences: Preferences
    """One comparison a pair."""
    labels: Labels | None = None
    """Everybody's answers; None where a rater was asked itself, whose answers the preferences are."""
    training_labels: int = 0
    """Answers that were spent on training people."""
    excluded: Sequence[str] = ()
    """Whose answers were left out."""
    reliability: Mapping[str, float] | None = None
    """How far each rater of the preferences can be relied on; None where they are a consensus."""


def collect(
    rater: Compares | Population,
    task: Task,
    responses: Responses,
    budget: LabelBudget,
    rng: np.random.Generator,
    asking: Asking = PLAINLY,
    *,
    sources: Sequence[str] = ("reference",),
    trained_before: bool = False,
) -> Collected:
    """Has random pairs of responses compared by whoever is given.

    Args:
        rater: one rater, or a population, whose own budget holds too.
        task: has a known truth.
        responses: k ≥ 2 responses to each of N prompts.
        budget: pays one label an answer.
        rng: draws everything.
        asking: how each pair is put to them.
        sources: who wrote the k responses to a prompt, an equal number each, in this order.
        trained_before: the people have had their training, which is paid for.

    Raises:
        UsageError, TextenvError: as `crowd_for`, `compare_by_crowd` and `reward_models.comparisons.compare`; the
            budget does not pay for the training.
    """
    crowd = crowd_for(rater, task, asking, rng)
    if crowd is None:
        assert not isinstance(rater, Population), "crowd_for() recruits from populations"
        gold = task.gold(responses)
        assert gold is not None, "raters are asked about tasks with a known truth only"
        return Collected(compare(responses, gold.utility, rater, budget, rng))
    budget, money = within_its_own(rater, budget)
    crowd, spent, money = with_training(crowd, asking, budget, money, paid=trained_before)
    collected = compare_by_crowd(
        responses, task, crowd, budget, rng, name=rater.name, asking=asking, money=money, sources=sources
    )
    return collected._replace(training_labels=spent)


def within_its_own(rater: Compares | Population, budget: LabelBudget) -> tuple[LabelBudget, float]:
    """The labels and the money that may be spent: no more than a population has itself, in labels or in money."""
    if not isinstance(rater, Population):
        return budget, math.inf
    labels = budget if rater.labels is None else LabelBudget(min(budget.remaining, rater.labels))
    return labels, math.inf if rater.money is None else rater.money


class Prepared(NamedTuple):
    """People who can be asked, and what is left to pay them."""

    crowd: Crowd
    training_labels: int
    """Answers that their training took out of the budget."""
    money: float


def with_training(crowd: Crowd, asking: Asking, budget: LabelBudget, money: float, *, paid: bool = False) -> Prepared:
    """The people after the training that is asked for, which is paid for unless it was before.

    Raises:
        UsageError: the training changes nobody, or the budget does not pay for it and for an answer more.
    """
    if asking.training_questions == 0:
        return Prepared(crowd, 0, money)
    training = trained(crowd, asking.training_questions)
    if paid:
        return Prepared(training.crowd, 0, money)
    for what, have, needs in (("labels", budget.remaining, training.labels), ("money", money, training.cost)):
        if needs >= have:
            raise UsageError(
                f"{asking.training_questions} training questions for each of {len(crowd)} raters cost {needs:g} {what} "
                f"of {have:g}, so that none is left; train them less, or raise the budget"
            )
    return Prepared(training.crowd, budget.take(training.labels), money - training.cost)


def crowd_for(rater: Compares | Population, task: Task, asking: Asking, rng: np.random.Generator) -> Crowd | None:
    """The people who answer, or None for a rater that has to be asked itself, by `reward_models.comparisons.compare`.

    Args:
        rater: a population is recruited from; a rater made of parts is as many people of one kind as an item needs.
        task: whose responses they judge.
        asking: how each item is put to them.
        rng: draws whom a population gives.

    Raises:
        UsageError: there are too few people, they care for what the task does not know, or a rater with methods of
            its own is to be several people.
    """
    names = rated_attributes(task)
    if isinstance(rater, Population):
        if asking.recruiting is not None:
            rater = replace(rater, recruiting=asking.recruiting)
        crowd = rater.recruit(names, rng)
        if len(crowd) < asking.raters_per_item:
            raise UsageError(
                f"each item is to be answered by {asking.raters_per_item} raters, but the population {rater.name!r} "
                f"gives {len(crowd)}; raise `raters` in its file"
            )
    elif asking.recruiting is not None:
        raise UsageError(
            f"recruiting {asking.recruiting} is of populations, but {rater.name!r} is one rater; describe a population "
            "in a file, or leave recruiting out"
        )
    elif isinstance(rater, Rater) and rater.only_parts and (rater.traits or asking != PLAINLY):
        crowd = crowd_of(rater, names, asking.raters_per_item)
    elif asking == PLAINLY:
        return None
    else:
        raise UsageError(
            f"the rater {rater.name!r} has methods of its own and is asked itself, so nothing can be put together: "
            f"leave out {', '.join(asking.changed())}, or describe a population in a file"
        )
    if crowd.uses(Sycophancy):
        sycophancy_place(names)  # For its message.
    return crowd


def questions_for(budget: LabelBudget, asking: Asking) -> int:
    """How many items the budget pays for; repeated questions count as well.

    Raises:
        UsageError: none.
    """
    count = int(budget.remaining / (1 + asking.repeat_rate) / asking.raters_per_item + 1e-9)
    if count == 0:
        raise UsageError(
            f"{budget.remaining} labels are too few for one item of {asking.raters_per_item} raters; raise the budget"
        )
    return count


def compare_by_crowd(
    responses: Responses,
    task: Task,
    crowd: Crowd,
    budget: LabelBudget,
    rng: np.random.Generator,
    *,
    name: str,
    asking: Asking = PLAINLY,
    money: float = math.inf,
    sources: Sequence[str] = ("reference",),
) -> Collected:
    """Lets people compare random pairs of different responses to the same prompt.

    The pairs and how the budget is spread over prompts are those of `reward_models.comparisons.compare`. A pair's
    label is what the consensus makes of the answers; what nobody answered is left out of the preferences. Where
    `asking.reliability` is not none, the preferences are the answers themselves.

    Args:
        responses: k ≥ 2 responses to each of N prompts.
        task: has a known truth.
        crowd: the people.
        budget: pays one label an answer, skipped or not.
        rng: draws pairs, who is asked, positions and answers.
        name: of the crowd, kept with the preferences.
        asking: how each pair is put to them.
        money: what may be spent.
        sources: who wrote the k responses to a prompt, an equal number each, in this order.

    Raises:
        UsageError: k < 2, the budget is too small for one pair, or as `reward_models.surveys.survey`.
        TextenvError: no prompt has two different responses, everything was skipped, or nobody is left to rely on.
    """
    asked = random_pairs(responses, rng)
    count = questions_for(budget, asking)
    items = np.array(asked[:count], dtype=np.int64).reshape(-1, 2)
    material = material_of(task, responses, prefixes=crowd.needs_prefixes)
    of_source = np.tile(
        np.repeat(np.arange(len(sources)), responses.group_size // len(sources)), len(responses.prompts)
    )
    material = replace(material, sources=of_source, source_names=tuple(sources))
    result = survey(
        crowd,
        material,
        items,
        rng,
        raters_per_item=asking.raters_per_item,
        gold_rate=asking.gold_rate,
        money=money,
        order=asking.order,
        repeat_rate=asking.repeat_rate,
    )
    labels = result.labels
    budget.take(len(labels))
    if bool(np.isnan(labels.label).all()):
        raise TextenvError("the raters skipped every pair, so there is nothing to learn from; lower their `skip`")
    left_out = excluded(labels, asking.exclude)
    kept = ~np.isnan(labels.label) & ~np.isin(labels.rater, left_out)
    chance = np.where(labels.swapped, 1 - result.probability, result.probability)[kept]
    labels_kept = labels[kept]
    pairs = torch.from_numpy(items[labels_kept.item])
    utility = material.utility[items[labels_kept.item]]
    if asking.reliability != "none":
        relied = consensus(labels_kept, asking.reliability)
        each = _preferences(
            responses, pairs, labels_kept.item_label, [str(who) for who in labels_kept.rater],
            labels_kept.session_time, utility, chance,
        )  # fmt: skip
        reliability = {str(who): float(value) for who, value in zip(relied.rater, relied.reliability, strict=True)}
        return Collected(each, labels, excluded=left_out, reliability=reliability)
    if asking.consensus in ("crowd-bt-scores", "groups"):
        agreed = response_consensus(labels_kept, asking.consensus, material, items, rng)
    else:
        agreed = consensus(labels_kept, asking.consensus)
    # Means over the answers to each item: of when they came, and of the probabilities of its first response.
    place = np.searchsorted(agreed.item, labels_kept.item)
    of_item = np.unique(place, return_index=True)[1]
    time, probability = (
        np.bincount(place, weights=each) / np.bincount(place) for each in (labels_kept.session_time, chance)
    )
    together = _preferences(
        responses, pairs[of_item], agreed.label, [name] * len(agreed.item), time, utility[of_item], probability
    )
    return Collected(together, labels, excluded=left_out)


def _preferences(
    responses: Responses,
    pairs: Int[Tensor, "n 2"],
    label: Float[np.ndarray, " n"],
    rater: Sequence[str],
    session_time: Float[np.ndarray, " n"],
    utility: Float[np.ndarray, "n 2"],
    probability: Float[np.ndarray, " n"],
) -> Preferences:
    first, second = pairs.unbind(dim=1)
    prompts = responses.prompts[first // responses.group_size]
    return Preferences(
        Responses(prompts, responses.ids[first], responses.mask[first]),
        Responses(prompts, responses.ids[second], responses.mask[second]),
        label=torch.from_numpy(label).float(),
        rater=rater,
        session_time=torch.from_numpy(session_time),
        utility=torch.from_numpy(utility).float(),
        probability=torch.from_numpy(probability).float(),
    )
