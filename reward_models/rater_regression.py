"""How raters judge where the true utilities are known: a logistic regression, in which length has no twin.

    logit P(first) = β_k·(u₁ − u₂) + position + length·(|y₁| − |y₂|)

The model of `reward_models.rater_estimation` with its differences given, so that what goes with length beyond the truth
is a bias to it. Utilities are known of simulated labels, and of real ones where the texts were scored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_expit

from reward_models.labels import Labels
from reward_models.minimising import Point, least
from reward_models.rater_estimation import BIAS_DEVIATION, PRIOR_DEVIATION, PRIOR_MEAN, Estimate, PoolEstimate
from textenv.errors import TextenvError


class Judged(NamedTuple):
    """n answers about responses of known utility."""

    rater: Int[np.ndarray, " n"]
    """From 0 without gaps."""
    label: Float[np.ndarray, " n"]
    """1 where the first shown was preferred, 0 the second, 0.5 for a tie."""
    difference: Float[np.ndarray, " n"]
    """u₁ − u₂ in the order shown."""
    length: Float[np.ndarray, " n"]
    """|y₁| − |y₂| in the order shown, in any unit."""


def regress_raters(labels: Labels) -> PoolEstimate:
    """Fits the model of this module by maximum a posteriori, with errors from the observed information.

    Args:
        labels: with true utilities; skipped questions are left out, ties count half for either side.

    Raises:
        TextenvError: there is no answer, or an answer's utilities are unknown.
    """
    labels = labels[~np.isnan(labels.label)]
    difference = labels.utility_first.astype(float) - labels.utility_second
    unknown = np.flatnonzero(np.isnan(difference))
    if not len(labels) or len(unknown):
        lacking = f"{len(unknown)} of {len(labels)} answers have none" if len(labels) else "there is no answer"
        raise TextenvError(f"regressing on true utilities needs them in every row; {lacking}. Leave it out")
    raters, rater = labels.codes("rater")
    length = labels.first_length.astype(float) - labels.second_length
    unit = float(np.sqrt(np.mean(length**2))) or 1.0
    data = Judged(rater, labels.label.astype(float), difference, length / unit)
    fitted = least(
        lambda point: negative_log_posterior(point, data), np.append(np.full(len(raters), PRIOR_MEAN), [0.0, 0.0])
    )
    errors = np.sqrt(np.diag(np.linalg.inv(information(fitted, data))))
    *rationality, position, along = (
        Estimate(float(value), float(error)) for value, error in zip(fitted, errors, strict=True)
    )
    told = bool(length.any())
    return PoolEstimate(
        raters=raters,
        rationality=rationality,
        position=position,
        length=Estimate(along.value / unit, along.error / unit) if told else Estimate(0.0, np.inf),
        labels=len(labels),
        items=len(np.unique(labels.item)),
    )


def negative_log_posterior(point: Point, data: Judged) -> tuple[float, Point]:
    """What is minimised, in nats, and its gradient; the priors are those of `reward_models.rater_estimation`."""
    beta, bias = point[:-2], point[-2:]
    logit = beta[data.rater] * data.difference + bias[0] + bias[1] * data.length
    residual = data.label - expit(logit)
    likelihood = (log_expit(logit) - (1 - data.label) * logit).sum()
    prior = 0.5 * ((((beta - PRIOR_MEAN) / PRIOR_DEVIATION) ** 2).sum() + ((bias / BIAS_DEVIATION) ** 2).sum())
    by_beta = np.bincount(data.rater, residual * data.difference, len(beta)) - (beta - PRIOR_MEAN) / PRIOR_DEVIATION**2
    by_bias = np.array([residual.sum(), residual @ data.length]) - bias / BIAS_DEVIATION**2
    return float(prior - likelihood), -np.concatenate([by_beta, by_bias])


def information(point: Point, data: Judged) -> Float[np.ndarray, "R+2 R+2"]:
    """The Hessian of `negative_log_posterior`: a rater's row meets those of the two biases alone."""
    raters = len(point) - 2
    chance = expit(point[data.rater] * data.difference + point[-2] + point[-1] * data.length)
    weight = chance * (1 - chance)
    shared = np.stack([np.ones(len(data.label)), data.length])
    found = np.diag(np.append(np.bincount(data.rater, weight * data.difference**2, raters), [0.0, 0.0]))
    for place, feature in enumerate(shared, raters):
        found[:raters, place] = found[place, :raters] = np.bincount(
            data.rater, weight * data.difference * feature, raters
        )
    found[raters:, raters:] = (shared * weight) @ shared.T
    return found + np.diag(np.append(np.full(raters, PRIOR_DEVIATION**-2.0), np.full(2, BIAS_DEVIATION**-2.0)))
