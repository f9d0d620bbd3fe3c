"""What is true and who errs how, from repeated answers: the EM of Dawid and Skene (1979).

Every item has one true class, drawn from a prior; rater k answers an item of class t with c at the
probability π_k[t, c], whatever the item. Both are estimated together, starting from the majority.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, logsumexp


class DawidSkene(NamedTuple):
    """The estimate for I items, R raters and C classes."""

    posterior: Float[np.ndarray, "I C"]
    """Probability of each class for each item, given all answers."""
    prior: Float[np.ndarray, " C"]
    """How common each class is."""
    confusion: Float[np.ndarray, "R C C"]
    """π_k[true, answered]; rows sum to 1."""
    objective: list[float]
    """Log posterior density (up to a constant, in nats) before each update of the parameters; never falls."""

    @property
    def accuracy(self) -> Float[np.ndarray, " R"]:
        """Probability that each rater answers the truth of an item drawn from the prior."""
        accuracy: Float[np.ndarray, " R"] = np.einsum("t,ktt->k", self.prior, self.confusion)
        return accuracy


def dawid_skene(
    item: Int[np.ndarray, " n"],
    rater: Int[np.ndarray, " n"],
    answer: Float[np.ndarray, "n C"],
    *,
    known: Float[np.ndarray, "I C"] | None = None,
    smoothing: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> DawidSkene:
    """Estimates classes and confusions by EM (Dawid and Skene 1979, eqs. 2.3 to 2.5), smoothed.

    Items and raters are numbered from 0 without gaps. EM climbs to a local maximum near the majority;
    where most raters are adversaries, that is the wrong one.

    Args:
        item: which item each answer is about.
        rater: who gave it.
        answer: its class as a one-hot row; a row that divides its 1 over classes counts as a part of each.
        known: the true class of items as one-hot rows, NaN rows where it is unknown; these are not estimated.
        smoothing: imagined answers of each rater in every cell of the confusion, and items of every class.
        tolerance: stops when no posterior moves by more.
        max_iterations: stops at the latest.

    Raises:
        ValueError: the shapes do not go together, or `smoothing` is not above 0.
    """
    n, classes = answer.shape
    if item.shape != (n,) or rater.shape != (n,):
        raise ValueError(f"answer has {n} rows, but item has shape {item.shape} and rater {rater.shape}")
    if not n or smoothing <= 0:
        raise ValueError(f"there are {n} answers and smoothing is {smoothing}; both must be above 0")
    items, raters = int(item.max()) + 1, int(rater.max()) + 1
    if known is not None and known.shape != (items, classes):
        raise ValueError(f"known has shape {known.shape}, expected {(items, classes)}")
    column = rater[:, None] * classes + np.arange(classes)
    rows = np.broadcast_to(item[:, None], column.shape)
    votes = csr_matrix((answer.ravel(), (rows.ravel(), column.ravel())), shape=(items, raters * classes))
    votes.eliminate_zeros()
    votes_by_rater = votes.T.tocsr()

    totals = np.stack([np.bincount(item, answer[:, each], items) for each in range(classes)], axis=1)
    posterior = _with_known(totals / totals.sum(axis=1, keepdims=True), known)
    objective: list[float] = []
    for _ in range(max_iterations):
        counts = smoothing + (votes_by_rater @ posterior).reshape(raters, classes, classes)  # [rater, answered, true]
        log_confusion = np.log(counts) - np.log(counts.sum(axis=1, keepdims=True))
        sizes = smoothing + posterior.sum(axis=0)
        log_prior = np.log(sizes / sizes.sum())
        joint = votes @ log_confusion.reshape(raters * classes, classes) + log_prior
        evidence = logsumexp(joint, axis=1)
        if known is not None:
            evidence = np.where(np.isnan(known[:, 0]), evidence, (joint * np.nan_to_num(known)).sum(axis=1))
        objective.append(float(evidence.sum() + smoothing * (log_confusion.sum() + log_prior.sum())))
        before, posterior = posterior, _with_known(np.exp(log_softmax(joint, axis=1)), known)
        if np.abs(posterior - before).max() <= tolerance:
            break
    return DawidSkene(posterior, np.exp(log_prior), np.exp(log_confusion).transpose(0, 2, 1), objective)


def _with_known(
    posterior: Float[np.ndarray, "I C"], known: Float[np.ndarray, "I C"] | None
) -> Float[np.ndarray, "I C"]:
    return posterior if known is None else np.where(np.isnan(known), posterior, known)
