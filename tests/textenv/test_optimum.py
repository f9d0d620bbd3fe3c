import math

import numpy as np
import pytest
import torch

from textenv import models
from textenv.enumeration import exact_optimum
from textenv.evaluation import Evaluation, evaluate, logprobs_under
from textenv.language_model import LanguageModel
from textenv.optimum import ImportanceSamples, estimate_optimum, mixture_samples, share_of_optimum
from textenv.rewards import GoldReward
from textenv.tasks.base import prompts_of
from textenv.tasks.exact import Exact

TASK = Exact()
REFERENCE = models.load("exact")
REWARD = GoldReward(TASK)


class Policy:
    def __init__(self, language_model: LanguageModel) -> None:
        self.language_model = language_model


@pytest.fixture(scope="module")
def warmer() -> Policy:
    """The reference with logits of 0.6 times the size: another policy, that reaches other responses."""
    copy = REFERENCE.copy()
    with torch.no_grad():
        copy.model.get_output_embeddings().weight.mul_(0.6)
    return Policy(copy)


def evaluated(policy: Policy, samples: int, seed: int) -> Evaluation:
    return evaluate(
        policy,
        TASK,
        REFERENCE,
        REWARD,
        prompts=prompts_of(TASK, TASK.fixed_prompts("test", 4)),
        samples_per_prompt=samples,
        generator=torch.Generator().manual_seed(seed),
    )


def rewards_of(evaluation: Evaluation) -> torch.Tensor:
    return evaluation.reward


def mixture(policy: Policy, samples: int, seed: int) -> tuple[Evaluation, Evaluation, ImportanceSamples]:
    after = evaluated(policy, samples, seed)
    before = evaluated(Policy(REFERENCE), samples, seed + 1)
    across = logprobs_under(policy, before.responses, TASK, REFERENCE)
    return after, before, mixture_samples(after, before, across, rewards_of)


def test_the_estimate_by_hand():
    # Weights exp(r/β)·π_ref/q: e^(1/0.5)·0.5 and e^0·1, so Ẑ = (e²/2 + 1)/2.
    samples = ImportanceSamples(torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(0.5), 0.0]]))
    optimum = estimate_optimum(samples, beta=0.5)
    first, second = math.exp(2) / 2, 1.0
    assert float(optimum.values[0]) == pytest.approx(0.5 * math.log((first + second) / 2))
    assert float(optimum.effective_sample_sizes[0]) == pytest.approx((first + second) ** 2 / (first**2 + second**2))
    mean, variance = (first + second) / 2, ((first - second) ** 2) / 2
    assert float(optimum.stderrs[0]) == pytest.approx(0.5 * math.sqrt(variance / 2) / mean)


def test_the_error_of_a_pool_that_stands_for_the_proposal_is_added():
    samples = ImportanceSamples(torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(0.5), 0.0]]))
    alone = estimate_optimum(samples, beta=0.5)
    pooled = estimate_optimum(samples._replace(proposal_sample_sizes=torch.tensor([4.0])), beta=0.5)
    assert float(pooled.values) == float(alone.values)
    assert float(pooled.stderrs) == pytest.approx(math.sqrt(float(alone.stderrs) ** 2 + 0.5**2 / 4))
    assert 1 / float(pooled.effective_sample_sizes) == pytest.approx(1 / float(alone.effective_sample_sizes) + 1 / 4)


def test_the_estimate_agrees_with_enumeration(warmer):
    truth = float(exact_optimum(TASK, REFERENCE, REWARD, TASK.beta).value.objective)
    _, _, samples = mixture(warmer, 4000, seed=0)
    optimum = estimate_optimum(samples, TASK.beta)
    stderr = float(optimum.stderrs.square().sum().sqrt()) / 4
    assert stderr < 0.05
    assert abs(float(optimum.values.mean()) - truth) < 4 * stderr
    assert float(optimum.effective_sample_sizes.min()) > 50


def test_no_weight_is_larger_than_the_references_share_allows(warmer):
    # π_ref/q ≤ π_ref / (½ π_ref) = 2, whatever the policy does.
    _, _, samples = mixture(warmer, 200, seed=3)
    assert float(samples.log_weights.max()) <= math.log(2) + 1e-9


def test_few_samples_of_the_reference_alone_estimate_too_low(warmer):
    truth = float(exact_optimum(TASK, REFERENCE, REWARD, TASK.beta).value.objective)
    few = evaluated(Policy(REFERENCE), 4000, seed=5).reward.view(4 * 1000, 4)
    values = estimate_optimum(ImportanceSamples(few, torch.zeros_like(few)), TASK.beta).values
    assert float(values.mean()) < truth - 0.1


def test_a_share_is_given_with_its_interval(warmer):
    after, before, samples = mixture(warmer, 4000, seed=7)
    result = share_of_optimum(after, before, samples, rewards_of, TASK.beta, np.random.default_rng(0))
    assert result.share == pytest.approx(
        (result.objective - result.objective_reference) / (result.optimum - result.objective_reference)
    )
    assert result.share_low <= result.share <= result.share_high < 1
    assert result.objective == pytest.approx(float((after.reward - TASK.beta * after.kl).mean()), abs=1e-5)


def test_no_share_without_enough_effective_samples(warmer):
    after, before, samples = mixture(warmer, 20, seed=9)
    result = share_of_optimum(after, before, samples, rewards_of, TASK.beta, np.random.default_rng(0))
    assert result.effective_sample_size < 50
    assert result.share is result.share_low is result.share_high is None
    assert math.isfinite(result.optimum)


def test_without_a_kl_term_sampling_is_refused():
    with pytest.raises(ValueError, match="without a KL term"):
        estimate_optimum(ImportanceSamples(torch.zeros(1, 2), torch.zeros(1, 2)), 0.0)
