"""DPO: what it tells of its comparisons, and where it leads."""

from __future__ import annotations

import pytest
import torch

from agents.checks.exact_worth import exact_worth
from agents.dpo import DPO, DPOConfig
from textenv.enumeration import all_logprobs, exact_objective, exact_optimum, total_variation
from textenv.precision import Precision
from textenv.rewards import GoldReward
from textenv.vector_env import TextVectorEnv


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tells_what_it_makes_of_either_response(precision: Precision) -> None:
    data = exact_worth().preferences[torch.arange(18)]
    metrics: list[dict[str, float]] = []
    config = DPOConfig(batch_size=18, learning_rate=1e-3, precision=precision)
    agent = DPO(TextVectorEnv("exact", kl="full"), config, 0, data)
    agent.learn(10_000, lambda agent, numbers: len(metrics) < 5 and metrics.append(numbers) is None)
    # Of the reference, which the policy is as yet.
    assert metrics[0]["reward_chosen"] == pytest.approx(0, abs=1e-4)
    assert metrics[0]["reward_rejected"] == pytest.approx(0, abs=1e-4)
    first, second = (agent.env.reference.logprobs(each).sum(dim=1) for each in (data.first, data.second))
    preferred = torch.where(data.label > 0.5, first, torch.where(data.label < 0.5, second, (first + second) / 2))
    assert metrics[0]["logprob_chosen"] == pytest.approx(
        float(preferred.mean()), abs=1e-3 if precision == "float32" else 0.1
    )
    for numbers in metrics:
        assert numbers["reward_chosen"] - numbers["reward_rejected"] == pytest.approx(
            numbers["reward_margin"], abs=1e-5
        )
    assert metrics[-1]["reward_chosen"] > 0.01 > metrics[-1]["reward_rejected"]


@pytest.mark.slow
def test_comes_to_the_optimum_from_soft_labels_of_enough_pairs() -> None:
    """By minibatches, as anybody would train it: 0.973 of what could be gained, in 35 s on one core."""
    worth = exact_worth()
    agent = DPO(
        TextVectorEnv("exact", kl="full"), DPOConfig(batch_size=64, learning_rate=1e-3), 0, worth.compare(16384)
    )
    agent.learn(400_000)
    judged = (worth.reference, GoldReward(worth.task), worth.task.beta)
    reached = exact_objective(worth.task, agent.language_model, *judged).objective
    share = (reached - worth.start.objective) / (worth.best.objective - worth.start.objective)
    assert float(share) > 0.96
    best = exact_optimum(worth.task, *judged).logprobs
    assert float(total_variation(all_logprobs(worth.task, agent.language_model).double(), best).mean()) < 0.15
