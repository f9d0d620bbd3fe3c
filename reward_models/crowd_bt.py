"""Scores of responses and reliabilities of raters from comparisons: Crowd-BT (Chen et al. 2013).

Rater k sees the true order with the probability η_k and its reverse otherwise:

    P(i ≻ j by k) = η_k·σ(s_i − s_j) + (1 − η_k)·σ(s_j − s_i)

η_k = 1/2 is a rater who clicks at random, and one below 1/2 an adversary, who informs too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_expit, xlogy

from reward_models.minimising import least


class Comparisons(NamedTuple):
    """n answers; scored things and raters are numbered from 0 without gaps."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    rater: Int[np.ndarray, " n"]
    label: Float[np.ndarray, " n"]
    """1 where the first was preferred, 0 where the second was; between them, a part of each."""


class Priors(NamedTuple):
    """What holds the estimate where answers are few."""

    regularisation: float
    """λ, answers "better" and answers "worse" in imagined comparisons of each thing with one of score 0."""
    right: Float[np.ndarray, " R"]
    """Imagined right answers of each rater, beside one of each kind: η_k ~ Beta(1 + right, 1 + wrong)."""
    wrong: Float[np.ndarray, " R"]
    """Imagined wrong answers of each rater."""


class CrowdBT(NamedTuple):
    """The estimate for I scored things and R raters."""

    score: Float[np.ndarray, " I"]
    """s_i, in nats: differences are log-odds."""
    reliability: Float[np.ndarray, " R"]
    """η_k."""


def negative_log_posterior(
    parameters: Float[np.ndarray, " I+R"], data: Comparisons, priors: Priors
) -> tuple[float, Float[np.ndarray, " I+R"]]:
    """What is minimised, −log of the posterior density in nats, and its gradient.

    With the regularisation of that paper (a virtual thing of score 0, which beats everything and loses to
    it λ times) and a Beta prior on each η_k.

    Args:
        parameters: the scores, then the log-odds of the η_k.
        data: the answers.
        priors: see there.
    """
    score, logit = np.split(parameters, [len(parameters) - len(priors.right)])
    reliability = expit(logit)
    eta = reliability[data.rater]
    difference = score[data.first] - score[data.second]
    up = expit(difference)
    # Away from 0 and 1, so that a sure rater who errs on a sure pair costs much, but not infinitely much.
    wins = np.clip(1 - eta + (2 * eta - 1) * up, 1e-12, 1 - 1e-12)
    likelihood = xlogy(data.label, wins) + xlogy(1 - data.label, 1 - wins)
    virtual = log_expit(score) + log_expit(-score)
    beta = priors.right * log_expit(logit) + priors.wrong * log_expit(-logit)

    by_probability = (data.label - wins) / (wins * (1 - wins))
    by_difference = by_probability * (2 * eta - 1) * up * (1 - up)
    by_logit = by_probability * (2 * up - 1) * eta * (1 - eta)
    score_gradient = (
        np.bincount(data.first, by_difference, len(score))
        - np.bincount(data.second, by_difference, len(score))
        + priors.regularisation * (1 - 2 * expit(score))
    )
    logit_gradient = (
        np.bincount(data.rater, by_logit, len(logit)) + priors.right * (1 - reliability) - priors.wrong * reliability
    )
    value = likelihood.sum() + priors.regularisation * virtual.sum() + beta.sum()
    return -float(value), -np.concatenate([score_gradient, logit_gradient])


def crowd_bt(data: Comparisons, priors: Priors) -> CrowdBT:
    """Fits scores and reliabilities together by maximum a posteriori.

    Turning every score and every η_k round changes no likelihood; the prior and the start, where every
    rater is as reliable as it says, choose the side on which most raters tell the truth.

    Args:
        data: the answers.
        priors: see there; they need more right answers than wrong ones for most raters.

    Raises:
        ValueError: the arrays differ in length, or a label lies outside [0, 1].
    """
    if len({len(column) for column in data}) != 1 or not len(data.label):
        raise ValueError(f"the columns must have one length above 0, got {[len(column) for column in data]}")
    if not bool(((data.label >= 0) & (data.label <= 1)).all()):
        raise ValueError("labels must be between 0 and 1")
    items = int(max(data.first.max(), data.second.max())) + 1
    start = np.concatenate([np.zeros(items), np.log((1 + priors.right) / (1 + priors.wrong))])
    fitted = least(lambda parameters: negative_log_posterior(parameters, data, priors), start)
    score, logit = np.split(fitted, [items])
    return CrowdBT(score, expit(logit))
