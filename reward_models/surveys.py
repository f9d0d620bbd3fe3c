"""Surveys: pairs of responses are put to several people each, and what everybody answered is kept."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from reward_models.labels import Labels
from reward_models.raters.crowd import Crowd
from reward_models.raters.judge import judge
from reward_models.raters.material import Material
from reward_models.schedules import Order, people, schedule, sources
from textenv.errors import UsageError


class Survey(NamedTuple):
    """What n questions came to."""

    labels: Labels
    probability: Float[np.ndarray, " n"]
    """Each label's expectation, NaN where the question was skipped; float32."""
    cost: float
    """What the labels cost, in money."""


def survey(
    crowd: Crowd,
    material: Material,
    items: Int[np.ndarray, "m 2"],
    rng: np.random.Generator,
    *,
    raters_per_item: int = 1,
    gold_rate: float = 0.0,
    money: float = math.inf,
    order: Order = "random",
    repeat_rate: float = 0.0,
) -> Survey:
    """Puts each item to different people.

    Everybody is asked about equally often. The items are asked one after the other until the money is spent; a
    skipped question costs as much as an answered one.

    Args:
        crowd: the people.
        material: the responses.
        items: rows of the material, each item's first and second response.
        rng: draws who is asked what in which order, the gold questions, the beliefs and the answers.
        raters_per_item: how many people answer each item.
        gold_rate: share of the items that are gold questions; only those with a better response can be.
        money: what may be spent.
        order: in which the two responses are shown.
        repeat_rate: share of the questions that are put to the same person again, in the other order.

    Raises:
        UsageError: as `reward_models.schedules.schedule` and `gold_questions`.
    """
    questions, item, orders, cost = schedule(
        crowd, material, items, rng,
        raters_per_item=raters_per_item, money=money, order=order, repeat_rate=repeat_rate,
    )  # fmt: skip
    gold = gold_questions(material.utility[items], gold_rate, rng)[item]
    verdicts = judge(crowd, material, questions, rng)
    utility = material.utility[questions.shown].astype(np.float32)
    lengths = material.lengths[questions.shown].astype(np.int32)
    written = sources(material, questions.shown)
    names, groups = people(crowd, questions.rater)
    labels = Labels(
        item=item,
        rater=names,
        group=groups,
        label=verdicts.label,
        swapped=orders[:, 0] == 1,
        session=questions.session,
        session_time=questions.session_time,
        first_length=lengths[:, 0],
        second_length=lengths[:, 1],
        first_source=written[:, 0],
        second_source=written[:, 1],
        utility_first=utility[:, 0],
        utility_second=utility[:, 1],
        gold=gold,
        gold_answer=np.where(gold, utility[:, 0] > utility[:, 1], np.nan).astype(np.float32),
    )
    return Survey(labels, verdicts.probability, cost)


def gold_questions(utility: Float[np.ndarray, "m 2"], rate: float, rng: np.random.Generator) -> Bool[np.ndarray, " m"]:
    """Draws which items are gold questions.

    Args:
        utility: the true ones of each item; where both are equal no answer is right.
        rate: share of all items that are gold questions.
        rng: draws them.

    Raises:
        UsageError: the rate is no probability, or too few items have a better response.
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"the rate of gold questions is {rate}, expected a number in [0, 1]")
    known = np.flatnonzero(utility[:, 0] != utility[:, 1])
    wanted = round(rate * len(utility))
    if wanted > len(known):
        raise UsageError(
            f"{wanted} gold questions were asked for, but only {len(known)} of the {len(utility)} items have a better "
            "response; give a lower rate"
        )
    gold = np.zeros(len(utility), dtype=bool)
    gold[rng.permutation(known)[:wanted]] = True
    return gold
