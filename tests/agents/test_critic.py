from __future__ import annotations

from typing import Any

import pytest
import torch

from agents.a2c import A2C, A2CConfig
from agents.critic import begin_values
from agents.ppo import PPO, PPOConfig
from textenv.errors import TextenvError
from textenv.vector_env import TextVectorEnv

REWARDS = torch.tensor([[1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])


@pytest.fixture(params=[(PPO, PPOConfig()), (A2C, A2CConfig(separate_value=True))], ids=["ppo", "a2c-two-trunks"])
def agent(request: pytest.FixtureRequest) -> Any:
    agent_class, config = request.param
    return agent_class(TextVectorEnv("exact", kl="full"), config, 0)


def test_the_values_begin_at_the_mean_reward_to_come(agent: Any) -> None:
    begin_values(agent.policy, REWARDS, MASK, gamma=1.0)
    # To come: 3, 2, 2 and 5.
    assert agent.policy.value_head.bias.item() == pytest.approx(3.0)
    begin_values(agent.policy, REWARDS, MASK, gamma=0.5)
    # 1.5, 1, 2 and 5.
    assert agent.policy.value_head.bias.item() == pytest.approx(2.375)


def test_they_begin_but_once(agent: Any) -> None:
    agent.learn(1)
    with torch.no_grad():
        agent.policy.value_head.bias.fill_(7.0)
    agent.learn(agent.num_timesteps + 1)
    assert agent.policy.value_head.bias.item() == pytest.approx(7.0, abs=0.1)


def test_their_head_takes_its_own_steps(agent: Any) -> None:
    agent.num_timesteps = 25
    assert agent.decay_learning_rate(100) == pytest.approx(0.75 * agent.config.learning_rate)
    rates = {
        name: group["lr"]
        for group in agent.optimizer.param_groups
        for name, parameter in agent.policy.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    assert len(rates) == len(list(agent.policy.parameters()))
    for name, rate in rates.items():
        own = agent.config.value_learning_rate if name.startswith("value_head") else agent.config.learning_rate
        assert rate == pytest.approx(0.75 * own)


def test_how_much_they_explain_is_told(agent: Any) -> None:
    metrics: list[dict[str, float]] = []
    agent.learn(1, lambda agent, numbers: metrics.append(numbers) is None)
    assert metrics[0]["explained_variance"] <= 1
    assert metrics[0]["value_loss"] > 0


def test_a_spoilt_weight_is_named_by_what_it_spoils() -> None:
    agent = PPO(TextVectorEnv("exact", kl="full"), PPOConfig(n_prompts=4, group_size=2), 0)
    with torch.no_grad():
        agent.policy.value_head.weight.fill_(float("nan"))
    with pytest.raises(TextenvError, match="became nan"):
        agent.learn(100)
