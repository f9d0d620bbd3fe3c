"""Comparisons by several raters: each pair is answered by different people, and their labels become one."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch

from reward_models.comparisons import LabelBudget, compare, random_pairs
from reward_models.consensus import METHODS, consensus
from reward_models.labels import Labels
from reward_models.raters.crowd import Crowd, crowd_of
from reward_models.raters.material import material_of, rated_attributes, sycophancy_place
from reward_models.raters.population import Population
from reward_models.raters.rater import Compares, Rater
from reward_models.raters.utility import Sycophancy
from reward_models.surveys import survey
from textenv.errors import TextenvError, UsageError, unknown_name
from textenv.preferences import Preferences
from textenv.responses import Responses
from textenv.tasks.base import Task


@dataclass(frozen=True)
class Asking:
    """How each comparison is put to people, and what their answers come to.

    Raises:
        UsageError: a number is out of its range, or the consensus is not known.
    """

    raters_per_item: int = 1
    """How many people answer each pair."""
    consensus: str = "mean"
    """What their answers come to, one of `reward_models.consensus.METHODS`."""
    gold_rate: float = 0.0
    """Share of the pairs whose right answer is known, by which people can be judged."""

    def __post_init__(self) -> None:
        if self.raters_per_item < 1:
            raise UsageError(f"raters_per_item is {self.raters_per_item}, expected 1 or more")
        if self.consensus not in METHODS:
            raise unknown_name("consensus", self.consensus, METHODS)
        if not 0 <= self.gold_rate <= 1:
            raise UsageError(f"gold_rate is {self.gold_rate}, expected a number in [0, 1]")
        if self.consensus == "gold" and self.gold_rate == 0:
            raise UsageError("the consensus 'gold' judges people by gold questions; raise gold_rate above 0")


class Collected(NamedTuple):
    """What a rater's or several raters' comparisons came to."""

    preferences: Preferences
    """One comparison a pair."""
    labels: Labels | None
    """Everybody's answers; None where a rater was asked itself, whose answers the preferences are."""


def collect(
    rater: Compares | Population,
    task: Task,
    responses: Responses,
    budget: LabelBudget,
    rng: np.random.Generator,
    asking: Asking = Asking(),  # Frozen.
) -> Collected:
    """Has random pairs of responses compared by whoever is given.

    Args:
        rater: one rater, or a population, whose own budget holds too.
        task: has a known truth.
        responses: k ≥ 2 responses to each of N prompts.
        budget: pays one label an answer.
        rng: draws everything.
        asking: how each pair is put to them.

    Raises:
        UsageError, TextenvError: as `crowd_for`, `compare_by_crowd` and `reward_models.comparisons.compare`.
    """
    crowd = crowd_for(rater, task, asking, rng)
    if crowd is None:
        assert not isinstance(rater, Population), "crowd_for() recruits from populations"
        gold = task.gold(responses)
        assert gold is not None, "raters are asked about tasks with a known truth only"
        return Collected(compare(responses, gold.utility, rater, budget, rng), None)
    money = None
    if isinstance(rater, Population):
        money = rater.money
        budget = budget if rater.labels is None else LabelBudget(min(budget.remaining, rater.labels))
    return compare_by_crowd(responses, task, crowd, budget, rng, name=rater.name, asking=asking, money=money)


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
        crowd = rater.recruit(names, rng)
        if len(crowd) < asking.raters_per_item:
            raise UsageError(
                f"each item is to be answered by {asking.raters_per_item} raters, but the population {rater.name!r} "
                f"gives {len(crowd)}; raise `raters` in its file"
            )
    elif isinstance(rater, Rater) and rater.only_parts and (rater.traits or asking != Asking()):
        crowd = crowd_of(rater, names, asking.raters_per_item)
    elif asking == Asking():
        return None
    else:
        raise UsageError(
            f"the rater {rater.name!r} has methods of its own and is asked itself, so nothing can be put together: "
            f"leave out {', '.join(_changed(asking))}, or describe a population in a file"
        )
    if crowd.uses(Sycophancy):
        sycophancy_place(names)  # For its message.
    return crowd


def compare_by_crowd(
    responses: Responses,
    task: Task,
    crowd: Crowd,
    budget: LabelBudget,
    rng: np.random.Generator,
    *,
    name: str,
    asking: Asking = Asking(),  # Frozen.
    money: float | None = None,
) -> Collected:
    """Lets people compare random pairs of different responses to the same prompt.

    The pairs and how the budget is spread over prompts are those of `reward_models.comparisons.compare`. A pair's
    label is what the consensus makes of the answers; what nobody answered is left out of the preferences.

    Args:
        responses: k ≥ 2 responses to each of N prompts.
        task: has a known truth.
        crowd: the people.
        budget: pays one label an answer, skipped or not.
        rng: draws pairs, who is asked, positions and answers.
        name: of the crowd, kept with the preferences.
        asking: how each pair is put to them.
        money: what may be spent; None is no bound.

    Raises:
        UsageError: k < 2, or as `reward_models.surveys.survey`.
        TextenvError: no prompt has two different responses, or everything was skipped.
    """
    asked = random_pairs(responses, rng)
    items = np.array(asked[: budget.remaining // asking.raters_per_item], dtype=np.int64).reshape(-1, 2)
    result = survey(
        crowd,
        material_of(task, responses, prefixes=crowd.needs_prefixes),
        items,
        rng,
        raters_per_item=asking.raters_per_item,
        gold_rate=asking.gold_rate,
        money=math.inf if money is None else money,
    )
    labels = result.labels
    budget.take(len(labels))
    if bool(np.isnan(labels.label).all()):
        raise TextenvError("the raters skipped every pair, so there is nothing to learn from; lower their `skip`")
    answered = consensus(labels, asking.consensus)

    # Means over the answers to each item: of when they came, and of the probabilities of its first response.
    kept = ~np.isnan(labels.label)
    place = np.searchsorted(answered.item, labels.item[kept])
    count = np.bincount(place)
    chance = np.where(labels.swapped, 1 - result.probability, result.probability)[kept]
    first, second = torch.from_numpy(items[answered.item]).unbind(dim=1)
    prompts = responses.prompts[first // responses.group_size]
    utility = torch.full((len(items), 2), torch.nan)
    shown = np.stack([labels.utility_first, labels.utility_second], axis=1)
    utility[labels.item] = torch.from_numpy(np.where(labels.swapped[:, None], shown[:, ::-1], shown))
    preferences = Preferences(
        Responses(prompts, responses.ids[first], responses.mask[first]),
        Responses(prompts, responses.ids[second], responses.mask[second]),
        label=torch.from_numpy(answered.label).float(),
        rater=[name] * len(answered.item),
        session_time=torch.from_numpy(np.bincount(place, weights=labels.session_time[kept]) / count),
        utility=utility[answered.item],
        probability=torch.from_numpy(np.bincount(place, weights=chance) / count).float(),
    )
    return Collected(preferences, labels)


def _changed(asking: Asking) -> list[str]:
    """The settings that are not left at their defaults."""
    return [field.name for field in fields(Asking) if getattr(asking, field.name) != field.default]
