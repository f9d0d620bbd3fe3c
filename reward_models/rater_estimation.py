"""How raters judge, from their labels alone: everybody's rationality, and what position and length do to the pool.

Rater k prefers what it is shown first with the log-odds

    logit P(first) = β_k·(u₁ − u₂) + position + length·(|y₁| − |y₂|)

a logistic model of Bradley and Terry's (1952) with an order effect (Davidson and Beaver 1977) and a length
term (Dubois et al. 2024, "Length-controlled AlpacaEval"). Utilities are unknown, but in the units of the
reference's within-prompt deviation u₁ − u₂ ~ N(0, 2), so each item's difference is integrated out: fitted, it
would explain a few answers too well, and every β_k would come out too large (Neyman and Scott 1948). What is
left is a two-parameter item response model (Bock and Aitkin 1981) with raters in the place of its items.

Labels alone cannot tell a bias to length from longer responses that are better: `length` is both together.
Position has no such twin where the order shown was drawn.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.special import expit, log_expit, log_softmax, logsumexp

from reward_models.labels import Labels
from reward_models.minimising import Point, least
from textenv.errors import TextenvError

DIFFERENCES = np.sqrt(2) * np.linspace(-4.0, 4.0, 33)
"""The grid of u₁ − u₂, in utility units, in the order of the item."""
_LOG_PRIOR = log_softmax(-(DIFFERENCES**2) / 4)
PRIOR_MEAN, PRIOR_DEVIATION = 1.0, 3.0
"""Of β_k, per utility unit. It holds back a rater whose answers are all explained, and hardly moves others."""
BIAS_DEVIATION = 10.0
"""Of position, and of length where the lengths differ as they usually do; they have mean 0."""

SLIGHTEST_RATIONALITY = 1e-3
"""Of a rater in a population's file; who clicks at random would need an endless bias to have any."""


class Answered(NamedTuple):
    """n answers, sorted by item."""

    start: Int[np.ndarray, " I"]
    """Where each item's answers begin."""
    rater: Int[np.ndarray, " n"]
    """From 0 without gaps."""
    label: Float[np.ndarray, " n"]
    """1 where the first shown was preferred, 0 the second, 0.5 for a tie."""
    side: Float[np.ndarray, " n"]
    """1 where the item's first response was shown first, −1 where it was shown second."""
    length: Float[np.ndarray, " n"]
    """|y₁| − |y₂| in the order shown, in any unit."""

    @property
    def item(self) -> Int[np.ndarray, " n"]:
        """Each answer's item, from 0."""
        return np.repeat(np.arange(len(self.start)), np.diff(self.start, append=len(self.rater)))


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wald's interval, by default of 95 %, on the scale of asinh: linear near 0, logarithmic far out.

        Large rationalities are known up to a factor, not up to a difference.
        """
        error = self.error / math.hypot(1, self.value)
        centre = math.asinh(self.value)
        return math.sinh(centre - z * error), math.sinh(centre + z * error)


class PoolEstimate(NamedTuple):
    """What labels tell of R raters."""

    raters: list[str | None]
    """In the order of their first answer."""
    rationality: list[Estimate]
    """β_k per utility unit; below 0 for an adversary."""
    position: Estimate
    """Log-odds of what is shown first."""
    length: Estimate
    """Log-odds for every token that the first is longer, by bias or because longer is better; 0 with an infinite error
    where lengths never differ."""
    labels: int
    """Answers that this is estimated from."""
    items: int
    """Pairs that they are about."""


def estimate_raters(labels: Labels) -> PoolEstimate:
    """Fits the model of this module by maximum a posteriori, with errors from the observed information.

    Args:
        labels: of any raters; skipped questions are left out, ties count half for either side. True utilities
            and gold answers are not looked at.

    Raises:
        TextenvError: there is no answer, or no item that two raters (or one, twice) answered: then only position
            and length could be told.
    """
    labels = labels[~np.isnan(labels.label)]
    if not len(labels) or len(np.unique(labels.item)) == len(labels):
        raise TextenvError(
            f"raters are judged by items that several of them answered; of {len(labels)} answers no two are about one "
            "item. Ask more raters an item, as with --raters-per-item 3"
        )
    labels = labels[np.argsort(labels.item, kind="stable")]
    raters, rater = labels.codes("rater")
    difference = labels.first_length.astype(float) - labels.second_length
    unit = float(np.sqrt(np.mean(difference**2))) or 1.0
    data = Answered(
        start=np.flatnonzero(np.diff(labels.item, prepend=labels.item[0] - 1)),
        rater=rater,
        label=labels.label.astype(float),
        side=np.where(labels.swapped, -1.0, 1.0),
        length=difference / unit,
    )
    parameters, covariance = fit(data, len(raters))
    errors = np.sqrt(np.diag(covariance))
    *rationality, position, length = (
        Estimate(float(value), float(error)) for value, error in zip(parameters, errors, strict=True)
    )
    told = bool(difference.any())
    return PoolEstimate(
        raters=raters,
        rationality=rationality,
        position=position,
        length=Estimate(length.value / unit, length.error / unit) if told else Estimate(0.0, np.inf),
        labels=len(labels),
        items=len(data.start),
    )


def population_description(estimate: PoolEstimate, name: str) -> dict[str, Any]:
    """The pool as a population's file describes it: a group of one person for each rater.

    Biases there are added to utilities, which a rater's rationality multiplies; here they are log-odds, so they are
    divided by it. Who answers against the truth is an adversary of the same rationality.
    """
    groups: dict[str, dict[str, float]] = {}
    for rater, rationality in zip(estimate.raters, estimate.rationality, strict=True):
        strength = max(abs(rationality.value), SLIGHTEST_RATIONALITY)
        traits = {
            "rationality": strength,
            "position_bias": estimate.position.value / strength,
            "length_bias": estimate.length.value / strength,
        }
        groups[str(rater)] = traits | ({"adversary": 1.0} if rationality.value < 0 else {})
    return {"name": name, "raters": len(groups), "recruiting": "stratified", "groups": groups}


def fit(data: Answered, raters: int) -> tuple[Float[np.ndarray, " R+2"], Float[np.ndarray, "R+2 R+2"]]:
    """The parameters β_1 … β_R, position, length, and their covariance."""
    # All raters tell of the last two, so these are surer by √R; on one scale, fewer steps are needed.
    scale = np.concatenate([np.ones(raters), np.full(2, raters**-0.5)])

    def scaled(point: Point) -> tuple[float, Point]:
        value, gradient = negative_log_posterior(point * scale, data)
        return value, gradient * scale

    fitted = scale * least(scaled, np.concatenate([np.ones(raters), np.zeros(2)]))
    return fitted, np.linalg.inv(observed_information(fitted, data))


class _Expected(NamedTuple):
    """What the answers come to at each node of the grid."""

    value: float
    """Log marginal likelihood in nats."""
    posterior: Float[np.ndarray, "I Q"]
    chance: Float[np.ndarray, "n Q"]
    """Probability of the answer "first" at each difference."""


def _expect(parameters: Float[np.ndarray, " R+2"], data: Answered) -> _Expected:
    beta, (position, length) = parameters[:-2], parameters[-2:]
    logit = np.outer(beta[data.rater] * data.side, DIFFERENCES) + (position + length * data.length)[:, None]
    # y·log σ(x) + (1 − y)·log σ(−x) in one logarithm.
    log_likelihood = log_expit(logit) - (1 - data.label)[:, None] * logit
    joint = np.add.reduceat(log_likelihood, data.start, axis=0) + _LOG_PRIOR
    evidence = logsumexp(joint, axis=1, keepdims=True)
    return _Expected(float(evidence.sum()), np.exp(joint - evidence), expit(logit))


def negative_log_posterior(
    parameters: Float[np.ndarray, " R+2"], data: Answered
) -> tuple[float, Float[np.ndarray, " R+2"]]:
    """What is minimised, in nats, and its gradient (by Fisher's identity)."""
    beta = parameters[:-2]
    expected = _expect(parameters, data)
    residual = (data.label[:, None] - expected.chance) * expected.posterior[data.item]
    total = residual.sum(axis=1)
    by_data = np.bincount(data.rater, data.side * (residual @ DIFFERENCES), len(beta))
    by_beta = by_data - (beta - PRIOR_MEAN) / PRIOR_DEVIATION**2
    by_bias = np.array([total.sum(), total @ data.length]) - parameters[-2:] / BIAS_DEVIATION**2
    value = expected.value - 0.5 * (
        (((beta - PRIOR_MEAN) / PRIOR_DEVIATION) ** 2).sum() + ((parameters[-2:] / BIAS_DEVIATION) ** 2).sum()
    )
    return -value, -np.concatenate([by_beta, by_bias])


def observed_information(parameters: Float[np.ndarray, " R+2"], data: Answered) -> Float[np.ndarray, "R+2 R+2"]:
    """The Hessian of `negative_log_posterior` (Louis 1982).

    The information that there would be if the differences were known, less that which is lost with them: the
    covariance of each item's score over what its difference may be.
    """
    n, size = len(data.rater), len(parameters)
    expected = _expect(parameters, data)
    item = data.item
    row, column = np.tile(np.arange(n), 3), np.concatenate([data.rater, np.repeat([size - 2, size - 1], n)])
    items = np.tile(item, 3)
    information = np.zeros((size, size))
    mean_score = csr_matrix((len(data.start), size))
    for node, difference in enumerate(DIFFERENCES):
        # An answer's features at this difference, and each item's score there.
        features = np.concatenate([data.side * difference, np.ones(n), data.length])
        weight = expected.posterior[:, node]
        chance = expected.chance[:, node]
        design = csr_matrix((features, (row, column)), (n, size))
        known = design.multiply((weight[item] * chance * (1 - chance))[:, None])
        score = csr_matrix((features * np.tile(data.label - chance, 3), (items, column)), (len(data.start), size))
        weighted = score.multiply(weight[:, None]).tocsr()
        information += (design.T @ known - score.T @ weighted).toarray()
        mean_score = mean_score + weighted
    information += (mean_score.T @ mean_score).toarray()
    deviation = np.repeat([PRIOR_DEVIATION, BIAS_DEVIATION], [size - 2, 2])
    return information + np.diag(deviation**-2)
