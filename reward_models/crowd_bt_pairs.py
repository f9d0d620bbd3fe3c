"""Crowd-BT where every pair stands alone: the differences of the scores are integrated out.

With a handful of answers a pair, fitting each pair's difference along with the raters' reliabilities
η_k lets the differences explain the answers, and the η_k come out wrong however many pairs there are
(Neyman and Scott 1948). Here a pair's difference is drawn from N(0, τ²) instead, and what is climbed
is the marginal likelihood (Bock and Aitkin 1981) of

    P(first ≻ second by k) = η_k·σ(d) + (1 − η_k)·σ(−d)        (Chen et al. 2013)

τ is set, not fitted: unsure raters and close pairs look alike in a few answers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.special import expit, log_expit, log_softmax, logsumexp

from reward_models.minimising import least

DIFFERENCES = np.linspace(-8.0, 8.0, 21)
"""The grid of d, in nats; at its ends a reliable rater errs three times in ten thousand."""
SPREAD = 2.5
"""τ in nats: about that of two responses of the reference to one prompt, √2 utility units, at a rationality of 1.8."""


_LOG_PRIOR = log_softmax(-0.5 * (DIFFERENCES / SPREAD) ** 2)


class PairAnswers(NamedTuple):
    """n answers about I pairs by R raters, as counts."""

    counts: csr_matrix
    """(I, 2R): how often rater k said "the second" (column 2k) or "the first" (column 2k + 1) of each pair."""
    right: Float[np.ndarray, " R"]
    """Each rater's right answers outside these pairs, real or imagined: η_k ~ Beta(1 + right, 1 + wrong)."""
    wrong: Float[np.ndarray, " R"]
    """The same for wrong answers."""


class PairCrowdBT(NamedTuple):
    """The estimate for I pairs and R raters."""

    probability: Float[np.ndarray, " I"]
    """E[σ(d)]: the probability that a reliable rater prefers the first of each pair, given all answers."""
    reliability: Float[np.ndarray, " R"]
    """η_k."""


def pair_answers(
    item: Int[np.ndarray, " n"],
    rater: Int[np.ndarray, " n"],
    label: Float[np.ndarray, " n"],
    right: Float[np.ndarray, " R"],
    wrong: Float[np.ndarray, " R"],
) -> PairAnswers:
    """Counts answers.

    Args:
        item: the pair of each answer, numbered from 0.
        rater: who gave it, numbered likewise.
        label: 1 where the pair's first was preferred, 0 where its second was; between them, a part of each.
        right: see `PairAnswers`; more than `wrong` for most raters, or the mirror image fits as well.
        wrong: likewise.

    Raises:
        ValueError: the arrays differ in length, or a label lies outside [0, 1].
    """
    if not len(item) == len(rater) == len(label) > 0:
        raise ValueError(f"lengths must be equal and above 0, got {len(item)}, {len(rater)} and {len(label)}")
    if not bool(((label >= 0) & (label <= 1)).all()):
        raise ValueError("labels must be between 0 and 1")
    values = np.concatenate([1 - label, label])
    places = (np.concatenate([item, item]), np.concatenate([2 * rater, 2 * rater + 1]))
    counts = csr_matrix((values, places), shape=(int(item.max()) + 1, 2 * len(right)))
    counts.eliminate_zeros()
    return PairAnswers(counts, right, wrong)


def negative_log_posterior(
    logit: Float[np.ndarray, " R"], answers: PairAnswers
) -> tuple[float, Float[np.ndarray, " R"], Float[np.ndarray, "I Q"]]:
    """What is minimised, −log of the posterior density in nats, its gradient, and what it takes each d to be.

    Args:
        logit: the log-odds of the η_k.
        answers: see there.

    Returns:
        The value, the gradient, and each pair's posterior over the grid of differences.
    """
    raters, nodes = len(logit), len(DIFFERENCES)
    eta = expit(logit)
    true = np.stack([expit(-DIFFERENCES), expit(DIFFERENCES)])  # [answer, d]
    probability = eta[:, None, None] * true + (1 - eta[:, None, None]) * true[::-1]  # [rater, answer, d]

    joint = answers.counts @ np.log(probability).reshape(2 * raters, nodes) + _LOG_PRIOR
    evidence = logsumexp(joint, axis=1)
    posterior = np.exp(joint - evidence[:, None])
    beta = answers.right * log_expit(logit) + answers.wrong * log_expit(-logit)

    # By Fisher's identity: the gradient of the full likelihood, averaged over what each d may be.
    expected = (answers.counts.T @ posterior).reshape(raters, 2, nodes)
    gradient = (expected * (true - true[::-1]) / probability).sum(axis=(1, 2)) * eta * (1 - eta)
    gradient += answers.right * (1 - eta) - answers.wrong * eta
    return -float(evidence.sum() + beta.sum()), -gradient, posterior


def pair_crowd_bt(answers: PairAnswers) -> PairCrowdBT:
    """Estimates the η_k (maximum a posteriori), and from them the pairs.

    The better of the maxima is taken that are reached from what the majority says of the raters, and from what is
    known of them otherwise: these differ where most raters are adversaries.
    """
    told = np.log((1 + answers.right) / (1 + answers.wrong))
    reached = [
        least(lambda logit: negative_log_posterior(logit, answers)[:2], start, bound=10.0)
        for start in (_agreement_with_majority(answers), told)
    ]
    logit = min(reached, key=lambda logit: negative_log_posterior(logit, answers)[0])
    return PairCrowdBT(negative_log_posterior(logit, answers)[2] @ expit(DIFFERENCES), expit(logit))


def _agreement_with_majority(answers: PairAnswers) -> Float[np.ndarray, " R"]:
    """Log-odds of each rater's answering as most do: a start on the side where most tell the truth."""
    seconds, firsts = answers.counts[:, 0::2], answers.counts[:, 1::2]
    side = np.sign(np.asarray((firsts - seconds).sum(axis=1)).ravel())
    lead = (firsts - seconds).T @ side
    total = np.asarray((firsts + seconds).sum(axis=0)).ravel()
    agree = (total + lead) / 2
    log_odds: Float[np.ndarray, " R"] = np.log((1 + answers.right + agree) / (1 + answers.wrong + total - agree))
    return log_odds
