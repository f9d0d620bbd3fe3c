"""Consensus that knows the responses: what is told of one pair tells of others as well."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from reward_models.consensus import IMAGINED_RIGHT, IMAGINED_WRONG, Consensus, votes_of
from reward_models.crowd_bt import Comparisons, Priors, crowd_bt
from reward_models.labels import Labels
from reward_models.rater_groups import find_groups
from reward_models.raters.material import Material
from textenv.errors import unknown_name

RESPONSE_METHODS = ("crowd-bt-scores", "groups")
"""crowd-bt-scores: Crowd-BT with a score for each response, so that a response's comparisons tell of one another.
groups: the mean of what the groups that are found among the raters would answer, whatever their sizes.
"""
REGULARISATION = 0.5
"""Imagined wins and defeats of every response against one of score 0: the virtual node of Chen et al. 2013."""


def response_consensus(
    labels: Labels,
    method: str,
    material: Material,
    items: Int[np.ndarray, "m 2"],
    rng: np.random.Generator,
) -> Consensus:
    """One label an item from all answers to all items; those to gold questions are taken for what they are.

    Args:
        labels: whose items are rows of `items`.
        method: one of `RESPONSE_METHODS`.
        material: the responses.
        items: rows of the material.
        rng: draws where the search for groups starts.

    Raises:
        UsageError: there is no such method.
        TextenvError: every question was skipped.
    """
    if method not in RESPONSE_METHODS:
        raise unknown_name("consensus", method, RESPONSE_METHODS)
    votes = votes_of(labels)
    pairs = items[votes.items]
    if method == "groups":
        answered = labels[~np.isnan(labels.label)]
        features = differences(material, pairs)
        side = np.where(answered.swapped, -1.0, 1.0)
        seen = np.column_stack([features[votes.item], side])
        groups = find_groups(votes.rater, seen, votes.label, rng)
        label = expit(features @ groups.weights[:, :-1].T).mean(axis=1)
        agreement = 1 - np.abs(votes.label - (label > 0.5)[votes.item])
        reliability = np.bincount(votes.rater, agreement) / np.bincount(votes.rater)
    else:
        rows, places = np.unique(pairs, return_inverse=True)
        first, second = places.reshape(pairs.shape).T
        unknown = np.isnan(votes.gold)[votes.item]
        item, rater = votes.item[unknown], votes.rater[unknown]
        priors = Priors(REGULARISATION, votes.right + IMAGINED_RIGHT, votes.wrong + IMAGINED_WRONG)
        if len(item):
            fitted = crowd_bt(Comparisons(first[item], second[item], rater, votes.label[unknown]), priors)
            score = np.zeros(len(rows))
            score[: len(fitted.score)] = fitted.score
            label, reliability = expit(score[first] - score[second]), fitted.reliability
        else:
            label, reliability = votes.gold, (1 + priors.right) / (2 + priors.right + priors.wrong)
    return Consensus(votes.items, np.where(np.isnan(votes.gold), label, votes.gold), votes.raters, reliability)


def differences(material: Material, pairs: Int[np.ndarray, "I 2"]) -> Float[np.ndarray, "I F"]:
    """What two responses differ in: each attribute, by what it adds to the utility, and the length, on one scale."""
    attributes = (material.attributes * material.weights)[pairs]
    lengths = material.lengths[pairs].astype(float)[:, :, None]
    features = np.concatenate([attributes, lengths], axis=2)
    each = features[:, 0] - features[:, 1]
    scale = np.sqrt((each**2).mean(axis=0))
    varied: Float[np.ndarray, "I F"] = each[:, scale > 0] / scale[scale > 0]
    return varied
