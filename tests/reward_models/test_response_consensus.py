"""Consensus that knows the responses: scores by Crowd-BT, and groups that count alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reward_models.raters.crowd import Crowd
from reward_models.raters.material import Material
from reward_models.response_consensus import differences, response_consensus
from reward_models.surveys import survey
from textenv.errors import UsageError

N = 300
RNG = np.random.default_rng(0)
MATERIAL = Material(
    RNG.normal(size=(N, 2)), np.ones(2), ("kind", "brief"), RNG.integers(3, 9, N), np.full(N, 5),
    np.zeros(N, dtype=np.int64),
)  # fmt: skip
PAIRS = RNG.permuted(np.tile(np.arange(N), (600, 1)), axis=1)[:, :2]


def answered(traits: dict[str, Any], **how: Any) -> Any:
    people = len(next(iter(traits.values())))
    crowd = Crowd(tuple(f"r{number}" for number in range(people)), (None,) * people, traits, np.zeros(people))
    return survey(crowd, MATERIAL, PAIRS, np.random.default_rng(1), **how).labels


def right(labels: Any, method: str, truth: Any) -> float:
    found = response_consensus(labels, method, MATERIAL, PAIRS, np.random.default_rng(2))
    first, second = truth[PAIRS[found.item]].T
    return float(((found.label > 0.5) == (first > second)).mean())


def test_groups_count_alike_whatever_their_sizes() -> None:
    """Nine of ten care for the first attribute alone, one for the second alone; both together are the truth."""
    tastes = np.array([[2.0, 0.0]] * 18 + [[0.0, 2.0]] * 2)
    labels = answered({"weights": tastes, "rationality": np.full(20, 3.0)}, raters_per_item=3)
    plain = np.bincount(labels.item, labels.item_label) > 1.5
    first, second = MATERIAL.utility[PAIRS].T
    majority = (plain == (first > second)).mean()
    assert majority < 0.82
    assert right(labels, "groups", MATERIAL.utility) > 0.9


def test_scores_tell_of_pairs_from_other_pairs_and_turn_liars_round() -> None:
    traits = {"rationality": np.full(10, 3.0), "adversary": np.array([1.0] * 3 + [0.0] * 7)}
    labels = answered(traits, raters_per_item=2)
    found = response_consensus(labels, "crowd-bt-scores", MATERIAL, PAIRS, np.random.default_rng(0))
    told = dict(zip(found.rater, found.reliability, strict=True))
    assert max(told[f"r{number}"] for number in range(3)) < 0.3 < 0.7 < min(told[f"r{n}"] for n in range(3, 10))
    first, second = MATERIAL.utility[PAIRS].T
    plain = np.bincount(labels.item, labels.item_label) / 2
    by_mean = np.where(plain == 0.5, 0.5, (plain > 0.5) == (first > second)).mean()
    assert right(labels, "crowd-bt-scores", MATERIAL.utility) > by_mean + 0.1


@pytest.mark.parametrize("method", ["groups", "crowd-bt-scores"])
def test_gold_answers_are_taken_for_what_they_are(method: str) -> None:
    labels = answered({"mistake": np.full(4, 1.0)}, gold_rate=1.0)
    assert right(labels, method, MATERIAL.utility) == 1


def test_features_are_on_one_scale() -> None:
    features = differences(MATERIAL, PAIRS)
    assert features.shape == (600, 3)
    np.testing.assert_allclose((features**2).mean(axis=0), 1)
    with pytest.raises(UsageError, match="Did you mean 'groups'"):
        response_consensus(answered({"mistake": np.zeros(2)}), "group", MATERIAL, PAIRS, RNG)
