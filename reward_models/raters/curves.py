"""How people's answers depend on the difference in utility: what their noise and bias look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from reward_models.raters.crowd import Crowd, crowd_of
from reward_models.raters.judge import Questions, judge
from reward_models.raters.material import Material
from reward_models.raters.parts import PARTS, Trait
from reward_models.raters.population import Population
from reward_models.raters.rater import Rater

NOTHING_TO_HEED = {"reads", "discount", "skip", "sycophancy", "expectation", "recency"}
"""Parts that change nothing of a first answer about two good responses that are otherwise alike."""


def choice_curves(crowd: Crowd, differences: Float[np.ndarray, " D"]) -> Float[np.ndarray, "R D"]:
    """Everybody's expected label, by how much better the response shown first is.

    The two responses are alike in all but their utility, good enough not to be skipped, and the first question of a
    session; which one agrees with what the rater believes is a coin's decision.

    Args:
        crowd: the people.
        differences: of the true utilities, in their units.
    """
    heeded = {key for key, part in PARTS.items() if not part.of_attributes} - NOTHING_TO_HEED
    crowd = dataclasses.replace(crowd, traits={key: each for key, each in crowd.traits.items() if key in heeded})
    people, count = len(crowd), len(differences)
    material = Material(
        attributes=np.concatenate([differences, np.zeros(count)])[:, None],
        weights=np.ones(1),
        attribute_names=("utility",),
        lengths=np.zeros(2 * count, dtype=np.int64),
        prompt_lengths=np.zeros(2 * count, dtype=np.int64),
        sources=np.zeros(2 * count, dtype=np.int64),
    )
    pairs = np.stack([np.arange(count), count + np.arange(count)], axis=1)
    expected = np.zeros((people, count))
    for agrees in (0, 1):
        zeros = np.zeros(people * count, dtype=np.int64)
        questions = Questions(
            np.tile(pairs, (people, 1)), np.repeat(np.arange(people), count), zeros, zeros, zeros, zeros + agrees
        )
        answered = judge(crowd, material, questions, np.random.default_rng(0))
        expected += answered.probability.reshape(people, count) / 2
    return expected


def typical_crowd(rater: Rater | Population, seed: int) -> Crowd:
    """The people that a rater or a population stands for, whatever the task.

    Args:
        rater: made of parts.
        seed: draws whom a population gives.
    """
    if isinstance(rater, Population):
        names = named_attributes(group.traits.values() for group in rater.groups)
        return rater.recruit(names, np.random.default_rng(seed))
    return crowd_of(rater, named_attributes([rater.traits.values()]))


def named_attributes(traits: Iterable[Iterable[Trait]]) -> list[str]:
    """The attributes that somebody's traits name."""
    return sorted({name for one in traits for trait in one if isinstance(trait, dict) for name in trait})
