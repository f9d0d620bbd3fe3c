from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.rollout import RolloutConfig, collect, rollout_metrics
from textenv.kl import k1, k2, k3
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
