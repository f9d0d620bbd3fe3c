"""Who is asked what, when and in which order: what every form of feedback begins with."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from reward_models.balancing import counterbalanced
from reward_models.raters.crowd import Crowd
from reward_models.raters.judge import Questions
from reward_models.raters.material import Material
from reward_models.raters.utility import ConfirmationBias
from reward_models.sessions import SECONDS_PER_DECISION, SECONDS_PER_TOKEN, sessions
from textenv.errors import UsageError

Order = Literal["random", "balanced", "fixed"]
"""random: drawn for each question.
balanced: each item as often in either order, as nearly as its number of questions allows.
fixed: always that of the item, which leaves a leaning to what is shown first alone.
"""


class Schedule(NamedTuple):
    """n questions about m items of k responses each."""

    questions: Questions
    item: Int[np.ndarray, " n"]
    """Which item each question is about."""
    order: Int[np.ndarray, "n k"]
    """The places in the item of the responses, as they are shown."""
    cost: float
    """What the answers cost, in money."""


def schedule(
    crowd: Crowd,
    material: Material,
    items: Int[np.ndarray, "m k"],
    rng: np.random.Generator,
    *,
    raters_per_item: int = 1,
    money: float = math.inf,
    order: Order = "random",
    repeat_rate: float = 0.0,
) -> Schedule:
    """Puts each item to different people.

    Everybody is asked about equally often. The items are asked one after the other until the money is spent, and at
    last some questions once more. An answer takes the time to read the prompt and the responses, and to decide.

    Args:
        crowd: the people.
        material: the responses.
        items: rows of the material.
        rng: draws who is asked, the orders and the beliefs.
        raters_per_item: how many people are asked about each item.
        money: what may be spent.
        order: in which the responses are shown.
        repeat_rate: share of the questions that are put to the same person again, in the reverse order.

    Raises:
        UsageError: there are fewer people than an item needs, the money does not pay for one answer, or the rate is
            no probability.
        ValueError: more than two responses are to be shown in balance.
    """
    if not 1 <= raters_per_item <= len(crowd):
        raise UsageError(
            f"each item is to be answered by {raters_per_item} raters, but there are {len(crowd)}; give 1 or more, "
            "or recruit more people"
        )
    if not 0 <= repeat_rate <= 1:
        raise UsageError(f"the rate of repeated questions is {repeat_rate}, expected a number in [0, 1]")
    m, k = items.shape
    rater = assign(len(crowd), m, raters_per_item, rng).reshape(-1)
    item = np.repeat(np.arange(m), raters_per_item)
    once = len(rater)
    if repeat_rate:
        again = rng.permutation(once)[: int(repeat_rate * once)]
        rater, item = np.append(rater, rater[again]), np.append(item, item[again])
    cost = crowd.cost[rater].cumsum()
    # Sums of costs are not exact; a bound that is met to the last digits is kept.
    affordable = len(rater) if math.isinf(money) else int(np.searchsorted(cost, money * (1 + 1e-12), side="right"))
    if affordable == 0 and m > 0:
        raise UsageError(f"{money:g} of money does not pay for an answer, which costs {cost[0]:g}")
    rater, item = rater[:affordable], item[:affordable]
    orders = _orders(item[:once], k, order, rng)
    if affordable > once:
        orders = np.concatenate([orders, orders[again[: affordable - once], ::-1]])
    shown = np.take_along_axis(items[item], orders, axis=1)
    tokens = material.prompt_lengths[shown[:, 0]] + material.lengths[shown].sum(axis=1)
    times = sessions(rater, SECONDS_PER_DECISION + SECONDS_PER_TOKEN * tokens, crowd.session_seconds)
    # Nobody's beliefs are drawn where nobody heeds them.
    agrees = _agreeing(crowd, rater, item, orders, rng) if crowd.uses(ConfirmationBias) else np.zeros_like(rater)
    questions = Questions(shown, rater, *times, agrees=agrees)
    return Schedule(questions, item, orders, float(cost[affordable - 1]) if affordable else 0.0)


def _orders(item: Int[np.ndarray, " n"], k: int, order: Order, rng: np.random.Generator) -> Int[np.ndarray, "n k"]:
    """The places in the item of the responses to each question, as they are shown."""
    as_they_are = np.tile(np.arange(k), (len(item), 1))
    if order == "fixed":
        return as_they_are
    if order == "random":
        return rng.permuted(as_they_are, axis=1)
    if k != 2:
        raise ValueError(f"two responses can be shown in balance, not {k}")
    return np.where(counterbalanced(item, rng)[:, None], as_they_are[:, ::-1], as_they_are)


def assign(raters: int, items: int, raters_per_item: int, rng: np.random.Generator) -> Int[np.ndarray, "m N"]:
    """Different raters for each item, everybody's number of items being the same but for chance.

    Raters are dealt like cards: of a shuffled pack as many items are served as it has whole hands, then it is
    shuffled anew.

    Args:
        raters: how many there are, at least `raters_per_item`.
        items: m.
        raters_per_item: N.
        rng: shuffles.
    """
    hands = raters // raters_per_item
    packs = math.ceil(items / hands)
    dealt = rng.permuted(np.tile(np.arange(raters), (packs, 1)), axis=1)
    return dealt[:, : hands * raters_per_item].reshape(-1, raters_per_item)[:items]


def _agreeing(
    crowd: Crowd,
    rater: Int[np.ndarray, " n"],
    item: Int[np.ndarray, " n"],
    order: Int[np.ndarray, "n k"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """Where the response is shown that agrees with the rater's belief, the same one for the whole group.

    A single response agrees by a coin's decision; where it does not, the place is 1, which is nobody's.
    """
    groups = {name: number for number, name in enumerate(dict.fromkeys(crowd.groups))}
    group = np.array([groups[name] for name in crowd.groups])[rater]
    pairs, place = np.unique(group * (item.max(initial=0) + 1) + item, return_inverse=True)
    k = order.shape[1]
    believed = rng.integers(max(k, 2), size=len(pairs))[place]
    where: Int[np.ndarray, " n"] = (order == believed[:, None]).argmax(axis=1)
    return np.where(believed < k, where, k)


def people(crowd: Crowd, rater: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """The names and the groups of those who answer n questions, as arrays of strings."""
    names, groups = (np.array(values, dtype=object) for values in (crowd.names, crowd.groups))
    return names[rater], groups[rater]


def sources(material: Material, shown: Int[np.ndarray, ...]) -> np.ndarray:
    """The names of the sources of rows of the material, as an array of strings."""
    named: np.ndarray = np.array(material.source_names, dtype=object)[material.sources[shown]]
    return named
