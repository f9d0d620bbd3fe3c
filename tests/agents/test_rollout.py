from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.policy import Actor, Computing
from agents.rollout import Rollout, RolloutConfig, collect, rollout_metrics
from textenv import products
from textenv.kl import k1, k2, k3
from textenv.precision import Precision
from textenv.vector_env import TextVectorEnv


def test_rollout_metrics_by_recomputing() -> None:
    env = TextVectorEnv("exact", kl="full", beta=0.1)
    env.reset(seed=0)
    policy = env.reference.copy()
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(1.5)
    rollout = collect(env, policy, RolloutConfig(n_prompts=8, group_size=2), torch.Generator().manual_seed(0))
    metrics = rollout_metrics(rollout, env)
    rows = rollout.responses.to_lists()
    episodes = list(zip(rollout.logprobs, rollout.scores.reference_logprobs, rows, strict=True))
    kl = np.mean([k1(p[: len(row)], q[: len(row)]).sum().item() for p, q, row in episodes])
    assert metrics["kl"] == pytest.approx(kl, abs=1e-5)
    for name, estimator in (("kl_k2", k2), ("kl_k3", k3)):
        expected = np.mean([estimator(p[: len(row)], q[: len(row)]).sum().item() for p, q, row in episodes])
        assert metrics[name] == pytest.approx(expected, abs=1e-5)
    assert metrics["response_length"] * len(rows) == rollout.tokens == sum(map(len, rows))
    assert metrics["eos_rate"] == np.mean([row[-1] == env.eos_id for row in rows])
    assert metrics["reward"] == pytest.approx(rollout.scores.score.mean().item())
    # The objective is judged at the task's beta, not at the one that is trained with.
    assert metrics["objective"] == pytest.approx(metrics["reward"] - env.task.beta * kl, abs=1e-5)
    assert metrics["beta"] == 0.1


def test_large_models_draw_tokens_in_the_numbers_that_they_learn_in(monkeypatch: pytest.MonkeyPatch) -> None:
    env = TextVectorEnv("exact", kl="full", beta=0.1)
    policy = env.reference.copy()

    def rolled_out(precision: Precision) -> Rollout:
        env.reset(seed=0)
        return collect(env, policy, RolloutConfig(precision=precision), torch.Generator().manual_seed(0))

    exact, small = rolled_out("float32"), rolled_out("bfloat16")
    assert torch.equal(exact.logprobs, small.logprobs)
    monkeypatch.setattr(products, "LARGE", 1)
    large = rolled_out("bfloat16")
    assert large.logprobs.dtype == torch.float32
    with torch.no_grad():
        learned = Actor(policy, Computing("bfloat16", 1))(large.responses)
    in_full = policy.logprobs(large.responses)
    # What is rounded alike in both is most of what is rounded.
    assert (large.logprobs - learned).abs().mean() < (large.logprobs - in_full).abs().mean() / 2
    torch.testing.assert_close(large.logprobs, in_full, atol=0.1, rtol=0)
