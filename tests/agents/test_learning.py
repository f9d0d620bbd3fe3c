"""Real learning on Exact-v0, judged by enumeration."""

from __future__ import annotations

from typing import Any

import pytest

from agents.a2c import A2C, A2CConfig
from agents.on_policy import OnPolicyAgent
from agents.ppo import PPO, PPOConfig
from textenv.enumeration import exact_objective, exact_optimum
from textenv.vector_env import TextVectorEnv


def share_of_optimum(agent: OnPolicyAgent) -> float:
    env = agent.env
    arguments: Any = (env.reference, env.reward_function, env.beta)
    start = exact_objective(env.task, env.reference, *arguments).objective
    reached = exact_objective(env.task, agent.language_model, *arguments).objective
    best = exact_optimum(env.task, *arguments).value.objective
    return float((reached - start) / (best - start))


@pytest.mark.parametrize(
    ("agent_class", "config"),
    [(PPO, PPOConfig(n_prompts=16, group_size=16)), (A2C, A2CConfig(n_prompts=8, group_size=4))],
    ids=["ppo", "a2c"],
)
def test_reaches_the_optimum(agent_class: type[OnPolicyAgent], config: Any) -> None:
    agent: Any = agent_class(TextVectorEnv("exact", kl="full"), config, 0)
    assert share_of_optimum(agent) == pytest.approx(0, abs=1e-6)
    agent.learn(100_000)
    assert share_of_optimum(agent) > 0.95
