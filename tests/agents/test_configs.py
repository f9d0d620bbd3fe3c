from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agents import AGENTS, load_agent
from agents.a2c import A2CConfig
from agents.dpo import DPOConfig
from agents.grpo import GRPOConfig
from agents.ppo import PPOConfig
from agents.rloo import RLOOConfig
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


ALL = (PPOConfig, A2CConfig, RLOOConfig, GRPOConfig, DPOConfig)
SAMPLING = (PPOConfig, A2CConfig, RLOOConfig, GRPOConfig)


@pytest.mark.parametrize(
    ("config_classes", "field", "value", "wanted"),
    [
        (ALL, "learning_rate", 0.0, r"is 0.0, expected a number in \(0, inf\)"),
        (ALL, "learning_rate", float("nan"), "is nan"),
        (ALL, "learning_rate", float("inf"), "is inf"),
        (ALL, "max_grad_norm", "1", "is '1', expected a number"),
        (SAMPLING, "n_prompts", 0, r"is 0, expected a whole number in \[1, inf\)"),
        (SAMPLING, "n_prompts", 2.5, "is 2.5, expected a whole number"),
        (SAMPLING, "group_size", True, "is True, expected a whole number"),
        (SAMPLING, "kl_target", 0, "is 0"),
        ((PPOConfig, A2CConfig), "gamma", 1.5, r"is 1.5, expected a number in \[0, 1\]"),
        ((PPOConfig, A2CConfig), "gae_lambda", -0.1, "is -0.1"),
        ((PPOConfig, A2CConfig), "vf_coef", -1, "is -1"),
        ((PPOConfig,), "clip_range_vf", 0, r"is 0, expected a number in \(0, inf\)"),
        ((RLOOConfig, GRPOConfig), "group_size", 1, r"is 1, expected a whole number in \[2, inf\)"),
        ((PPOConfig, RLOOConfig, GRPOConfig), "n_epochs", 0, r"is 0, expected a whole number in \[1, inf\)"),
        ((PPOConfig, RLOOConfig, GRPOConfig), "n_minibatches", 17, "is 17, expected at most n_prompts = 16"),
        ((PPOConfig, RLOOConfig, GRPOConfig), "clip_range", 0, r"is 0, expected a number in \(0, inf\)"),
        ((DPOConfig,), "batch_size", 0, r"is 0, expected a whole number in \[1, inf\)"),
    ],
)
def test_bad_settings_name_field_value_and_range(
    config_classes: tuple[type[Any], ...], field: str, value: Any, wanted: str
) -> None:
    for config_class in config_classes:
        with pytest.raises(UsageError, match=f"{config_class.__name__}.{field} {wanted}"):
            config_class(**{field: value})


def test_a_value_need_not_be_clipped() -> None:
    assert PPOConfig(clip_range_vf=None).clip_range_vf is None
