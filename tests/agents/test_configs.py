from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agents import AGENTS, load_agent
from agents.a2c import A2CConfig
from agents.ppo import PPOConfig
from textenv.errors import UsageError


@pytest.mark.parametrize("name", AGENTS)
def test_every_registered_agent_loads_and_has_defaults(name: str) -> None:
    agent = load_agent(name)
    assert agent.name == name
    config = agent.config_class()
    assert dataclasses.is_dataclass(config)
    assert agent.config_class(**dataclasses.asdict(config)) == config


def test_an_unknown_agent_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown agent 'pp0'. Did you mean 'ppo'\?"):
        load_agent("pp0")


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("n_prompts", 0, r"is 0, expected a whole number in \[1, inf\)"),
        ("n_prompts", 2.5, "is 2.5, expected a whole number"),
        ("group_size", True, "is True, expected a whole number"),
        ("learning_rate", 0.0, r"is 0.0, expected a number in \(0, inf\)"),
        ("learning_rate", float("nan"), "is nan"),
        ("learning_rate", float("inf"), "is inf"),
        ("gamma", 1.5, r"is 1.5, expected a number in \[0, 1\]"),
        ("gae_lambda", -0.1, "is -0.1"),
        ("vf_coef", -1, "is -1"),
        ("max_grad_norm", "1", "is '1', expected a number"),
        ("kl_target", 0, "is 0"),
    ],
)
def test_bad_settings_name_field_value_and_range(config_class: type[Any], field: str, value: Any, wanted: str) -> None:
    with pytest.raises(UsageError, match=f"{config_class.__name__}.{field} {wanted}"):
        config_class(**{field: value})


def test_settings_of_ppo_alone() -> None:
    with pytest.raises(UsageError, match="n_minibatches is 5, expected at most n_prompts = 4"):
        PPOConfig(n_prompts=4, n_minibatches=5)
    with pytest.raises(UsageError, match="clip_range_vf is 0"):
        PPOConfig(clip_range_vf=0)
    assert PPOConfig(clip_range_vf=None).clip_range_vf is None
