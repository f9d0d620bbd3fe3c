"""The best reachable objective J* and the share of it that a policy gained.

For a score r, a reference π_ref and a weight β, the objective J(π) = E[r] − β·KL(π‖π_ref) is at
most J* = E_x[β log E_{y~π_ref} exp(r(x,y)/β)], reached by π* ∝ π_ref exp(r/β) (Korbak et al. 2022,
"RL with KL penalties is better viewed as Bayesian inference", section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from textenv.evaluation import Evaluation

LEAST_EFFECTIVE_SAMPLES = 50
"""Effective samples a prompt below which J* is not trusted, and no share is given."""

RESAMPLES = 1000
"""Bootstrap resamples of the prompts."""


class ImportanceSamples(NamedTuple):
    """M responses to each of N prompts from some proposal q, with what is needed to estimate J*."""

    scores: Float[Tensor, "N M"]
    """r(x, y)."""
    log_weights: Float[Tensor, "N M"]
    """log π_ref(y|x) − log q(y|x)."""
    proposal_sample_sizes: Float[Tensor, " N"] | None = None
    """Effective samples of the pool that stands for q where they were drawn from one; None where q itself was."""


@runtime_checkable
class KnowsOptimum(Protocol):
    """A task that ships importance samples of its true utility, so that its J* needs no sampling."""

    def importance_samples(self, count: int) -> ImportanceSamples | None:
        """Those of the first `count` fixed test prompts under the task's own reference, if it has so many."""
        ...


class Optimum(NamedTuple):
    """An estimate of J* at each of N prompts."""

    values: Float[Tensor, " N"]
    """β log Ẑ(x); biased low by about half its variance over β (Jensen)."""
    stderrs: Float[Tensor, " N"]
    """Standard errors of the values, by the delta method, that of q's own normaliser among them."""
    effective_sample_sizes: Float[Tensor, " N"]
    """(Σw)² / Σw², of the weights w = exp(r/β)·π_ref/q; where q is a pool, that of both stages together."""


class Objective(NamedTuple):
    """A policy's objective between the reference's and the best reachable one."""

    objective: float
    """J of the policy."""
    objective_reference: float
    """J of the reference: its mean score."""
    optimum: float
    """J*."""
    optimum_stderr: float
    """Standard error of J* that comes from sampling responses, the prompts taken as given."""
    share: float | None
    """(J − J_ref) / (J* − J_ref); None where J* cannot be trusted."""
    share_low: float | None
    """Lower end of the 95% interval of the share, bootstrapped over prompts."""
    share_high: float | None
    """Upper end."""
    effective_sample_size: float
    """Median over the prompts."""


def estimate_optimum(samples: ImportanceSamples, beta: float) -> Optimum:
    """J* at each prompt by importance sampling: β log (1/M) Σ_i exp(r_i/β) π_ref(y_i)/q(y_i)."""
    if beta <= 0:
        raise ValueError(f"beta is {beta}; without a KL term J* is the largest score, which sampling cannot find")
    count = samples.scores.shape[1]
    log_terms = samples.scores.double() / beta + samples.log_weights.double()
    weights = torch.softmax(log_terms, dim=1)
    values = beta * (torch.logsumexp(log_terms, dim=1) - math.log(count))
    squares = weights.square().sum(dim=1)
    relative_variance = (squares - 1 / count).clamp(min=0) * count / max(1, count - 1)
    if samples.proposal_sample_sizes is not None:
        # Two stages, each with an error of its own: the pool for q, and the draws from the pool.
        pool = 1 / samples.proposal_sample_sizes.double()
        relative_variance, squares = relative_variance + pool, squares + pool
    return Optimum(values, beta * relative_variance.sqrt(), 1 / squares)


def mixture_samples(
    policy: Evaluation,
    reference: Evaluation,
    policy_on_reference: Float[Tensor, "B T"],
    scores: Callable[[Evaluation], Float[Tensor, " B"]],
) -> ImportanceSamples:
    """Samples of policy and reference together, weighted as draws from their mixture.

    Every draw is weighted by the whole mixture (the balance heuristic of Veach and Guibas 1995), so
    no weight is larger than π_ref's share of the samples allows, however far the policy has gone.

    Args:
        policy: evaluation of the policy on N prompts.
        reference: evaluation of π_ref on the same prompts.
        policy_on_reference: log-probabilities of the reference's response tokens under the policy.
        scores: r of an evaluation's responses.
    """
    prompts = len(policy.responses.prompts)
    logp_ref = torch.cat([_per_prompt(policy.reference_logprobs, prompts), _per_prompt(reference.logprobs, prompts)], 1)
    logp_policy = torch.cat([_per_prompt(policy.logprobs, prompts), _per_prompt(policy_on_reference, prompts)], dim=1)
    drawn = torch.tensor([policy.responses.group_size, reference.responses.group_size], dtype=torch.float64)
    log_shares = (drawn / drawn.sum()).log()
    log_mixture = torch.logaddexp(logp_policy + log_shares[0], logp_ref + log_shares[1])
    both = torch.cat([scores(policy).view(prompts, -1), scores(reference).view(prompts, -1)], dim=1)
    return ImportanceSamples(both, logp_ref - log_mixture)


def share_of_optimum(
    policy: Evaluation,
    reference: Evaluation,
    samples: ImportanceSamples,
    scores: Callable[[Evaluation], Float[Tensor, " B"]],
    beta: float,
    generator: np.random.Generator,
) -> Objective:
    """J of the policy, J of the reference, J*, and the share, with its interval over prompts.

    Args:
        policy: evaluation of the policy on N prompts.
        reference: evaluation of π_ref on the same prompts.
        samples: what J* is estimated from, for the same prompts in the same order.
        scores: r of an evaluation's responses.
        beta: the evaluation β.
        generator: draws the bootstrap's resamples.
    """
    prompts = len(policy.responses.prompts)
    reached = (scores(policy).double() - beta * policy.kl.double()).view(prompts, -1).mean(dim=1)
    start = scores(reference).double().view(prompts, -1).mean(dim=1)
    optimum = estimate_optimum(samples, beta)
    best = optimum.values
    effective = float(optimum.effective_sample_sizes.median())
    stderr = float(optimum.stderrs.square().sum().sqrt()) / prompts
    share = low = high = None
    if effective >= LEAST_EFFECTIVE_SAMPLES:
        rows = torch.from_numpy(generator.integers(prompts, size=(RESAMPLES, prompts)))
        shares = _share(reached[rows].mean(dim=1), start[rows].mean(dim=1), best[rows].mean(dim=1))
        share = float(_share(reached.mean(), start.mean(), best.mean()))
        low, high = (float(shares.quantile(level)) for level in (0.025, 0.975))
    return Objective(
        float(reached.mean()), float(start.mean()), float(best.mean()), stderr, share, low, high, effective
    )


def _share(reached: Tensor, start: Tensor, best: Tensor) -> Tensor:
    return (reached - start) / (best - start)


def _per_prompt(logprobs: Float[Tensor, "B T"], prompts: int) -> Float[Tensor, "N k"]:
    """Log-probability of each whole response, a row a prompt."""
    return logprobs.double().sum(dim=1).view(prompts, -1)
