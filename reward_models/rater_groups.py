"""Groups among raters who judge alike, found from their answers: a mixture of logistic models of choice.

Every rater belongs to one of G groups, and a group weighs what differs between two responses in its own way:

    P(first ≻ second by a rater of group g) = σ(w_g · (x_first − x_second))

This is McFadden and Train's (2000) mixed logit with finitely many tastes, or a latent-class conditional
logit; EM fits it, and the criterion of Schwarz (1978) says how many groups the answers speak for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_expit, log_softmax, logsumexp

from textenv.errors import UsageError

RIDGE = 1.0
"""Precision of the normal prior of each weight, which keeps a group whose answers are all explained finite."""


class RaterGroups(NamedTuple):
    """G groups of R raters who weigh F features."""

    weights: Float[np.ndarray, "G F"]
    """w_g, the largest group first."""
    share: Float[np.ndarray, " G"]
    """Share of the raters who belong to each group."""
    membership: Float[np.ndarray, "R G"]
    """Probability that a rater belongs to a group; rows sum to 1."""
    bic: float
    """Schwarz's criterion, −2·log likelihood + parameters·log n, in nats; the lower, the better."""


def find_groups(
    rater: Int[np.ndarray, " n"],
    difference: Float[np.ndarray, "n F"],
    label: Float[np.ndarray, " n"],
    rng: np.random.Generator,
    *,
    most_groups: int = 4,
    restarts: int = 5,
) -> RaterGroups:
    """Fits 1, 2, … groups and returns the number of them that Schwarz's criterion prefers.

    Args:
        rater: who gave each answer, numbered from 0 without gaps.
        difference: x_first − x_second, such as the differences of the attributes, of the lengths, and a 1 for the
            position; best on one scale.
        label: 1 where the first was preferred, 0 the second, 0.5 for a tie.
        rng: draws where EM starts.
        most_groups: tried at most, no more than there are raters.
        restarts: fits of each number of groups, of which the likeliest counts.

    Raises:
        UsageError: there is no answer, or the numbers asked for are not above 0.
        ValueError: the arrays differ in length.
    """
    if not len(rater) == len(difference) == len(label):
        raise ValueError(f"lengths must be equal, got {len(rater)}, {len(difference)} and {len(label)}")
    if not len(label) or most_groups < 1 or restarts < 1:
        raise UsageError(
            f"groups need answers, 1 group and 1 start at least; got {len(label)}, {most_groups} and {restarts}"
        )
    raters = int(rater.max()) + 1
    best: RaterGroups | None = None
    for groups in range(1, min(most_groups, raters) + 1):
        fits = [_fit(rater, difference, label, groups, rng) for _ in range(1 if groups == 1 else restarts)]
        likeliest = min(fits, key=lambda each: each.bic)
        if best is not None and likeliest.bic >= best.bic:
            break
        best = likeliest
    assert best is not None
    order = np.argsort(-best.share, kind="stable")
    return best._replace(weights=best.weights[order], share=best.share[order], membership=best.membership[:, order])


def _fit(
    rater: Int[np.ndarray, " n"],
    difference: Float[np.ndarray, "n F"],
    label: Float[np.ndarray, " n"],
    groups: int,
    rng: np.random.Generator,
) -> RaterGroups:
    """EM from groups that each begin as one rater, drawn without replacement."""
    raters = int(rater.max()) + 1
    membership = np.full((raters, groups), 1 / groups)
    if groups > 1:
        membership[:] = 0
        membership[rng.choice(raters, size=groups, replace=False), np.arange(groups)] = 1
    weights = np.zeros((groups, difference.shape[1]))
    weights = _weighed(rater, difference, label, membership, weights)
    share, before = np.full(groups, 1 / groups), -np.inf
    while True:
        joint = np.log(share) + _log_likelihood(rater, difference, label, weights, raters)
        evidence = float(logsumexp(joint, axis=1).sum())
        membership = np.exp(log_softmax(joint, axis=1))
        if evidence - before < 1e-4:
            break
        before = evidence
        # Shares stay above 0, so that an empty group is counted as a parameter and loses by Schwarz's criterion.
        share = np.maximum(membership.mean(axis=0), 1e-12)
        weights = _weighed(rater, difference, label, membership, weights)
    parameters = weights.size + groups - 1
    return RaterGroups(weights, share, membership, -2 * evidence + parameters * float(np.log(len(label))))


def _weighed(
    rater: Int[np.ndarray, " n"],
    difference: Float[np.ndarray, "n F"],
    label: Float[np.ndarray, " n"],
    membership: Float[np.ndarray, "R G"],
    start: Float[np.ndarray, "G F"],
) -> Float[np.ndarray, "G F"]:
    """The weights of each group, if raters belong to it as far as is said."""
    counts = membership[rater].T
    return np.stack([logistic(difference, label, *each) for each in zip(counts, start, strict=True)])


def _log_likelihood(
    rater: Int[np.ndarray, " n"],
    difference: Float[np.ndarray, "n F"],
    label: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "G F"],
    raters: int,
) -> Float[np.ndarray, "R G"]:
    """Of each rater's answers, were it of each group."""
    logit = difference @ weights.T
    each = log_expit(logit) - (1 - label)[:, None] * logit
    return np.stack([np.bincount(rater, column, raters) for column in each.T], axis=1)


def logistic(
    difference: Float[np.ndarray, "n F"],
    label: Float[np.ndarray, " n"],
    count: Float[np.ndarray, " n"],
    start: Float[np.ndarray, " F"],
) -> Float[np.ndarray, " F"]:
    """Weights of a logistic regression with a ridge, by Newton's method with halved steps.

    Args:
        difference: features.
        label: in [0, 1].
        count: how often each row counts, 0 or more.
        start: the first weights.
    """

    def loss(weights: Float[np.ndarray, " F"]) -> float:
        logit = difference @ weights
        return float(RIDGE / 2 * weights @ weights - count @ (log_expit(logit) - (1 - label) * logit))

    weights, value = start, loss(start)
    for _ in range(50):
        chance = expit(difference @ weights)
        gradient = RIDGE * weights - difference.T @ (count * (label - chance))
        curvature = (difference * (count * chance * (1 - chance))[:, None]).T @ difference
        step = np.linalg.solve(curvature + RIDGE * np.eye(len(weights)), gradient)
        size = 1.0
        while loss(weights - size * step) > value and size > 1e-6:
            size /= 2
        weights, before = weights - size * step, value
        value = loss(weights)
        if before - value < 1e-8:
            break
    return weights
