from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agents import AGENTS, load_agent
from agents.a2c import A2CConfig
from agents.conditioned import ConditionedConfig
from agents.context_distillation import ContextDistillationConfig
from agents.dpo import DPOConfig
from agents.dr_grpo import DrGRPOConfig
from agents.expert_iteration import ExpertIterationConfig
from agents.grpo import GRPOConfig
from agents.joint import JointConfig
from agents.nlpo import NLPOConfig
from agents.online_dpo import OnlineDPOConfig
from agents.ppo import PPOConfig
from agents.ppo_ptx import PPOPtxConfig
from agents.reinforce import ReinforceConfig
from agents.rloo import RLOOConfig
from agents.sft import SFTConfig
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


GROUPS = (RLOOConfig, GRPOConfig, DrGRPOConfig, OnlineDPOConfig, ExpertIterationConfig)
SAMPLING = (PPOConfig, NLPOConfig, PPOPtxConfig, A2CConfig, ReinforceConfig, ConditionedConfig, *GROUPS)
OFFLINE = (DPOConfig, JointConfig, SFTConfig)
ALL = (*SAMPLING, *OFFLINE, ContextDistillationConfig)
EPOCHS = (PPOConfig, NLPOConfig, PPOPtxConfig, *GROUPS)
CLIPPED = (PPOConfig, NLPOConfig, PPOPtxConfig, RLOOConfig, GRPOConfig, DrGRPOConfig)


@pytest.mark.parametrize(
    ("config_classes", "field", "value", "wanted"),
    [
        (ALL, "learning_rate", 0.0, r"is 0.0, expected a number in \(0, inf\)"),
        (ALL, "learning_rate", float("nan"), "is nan"),
        (ALL, "learning_rate", float("inf"), "is inf"),
        (ALL, "lr_schedule", "step", "is 'step', expected 'linear' or 'constant' or 'cosine'"),
        (ALL, "lr_warmup", 1.0, r"is 1.0, expected a number in \[0, 0.9\]"),
        (ALL, "max_grad_norm", "1", "is '1', expected a number"),
        (SAMPLING, "n_prompts", 0, r"is 0, expected a whole number in \[1, inf\)"),
        (SAMPLING, "n_prompts", 2.5, "is 2.5, expected a whole number"),
        (SAMPLING, "group_size", True, "is True, expected a whole number"),
        (SAMPLING, "kl_target", 0, "is 0"),
        ((PPOConfig, A2CConfig), "gamma", 1.5, r"is 1.5, expected a number in \[0, 1\]"),
        ((PPOConfig, A2CConfig), "gae_lambda", -0.1, "is -0.1"),
        ((PPOConfig, A2CConfig), "vf_coef", -1, "is -1"),
        ((PPOConfig,), "clip_range_vf", 0, r"is 0, expected a number in \(0, inf\)"),
        (
            GROUPS,
            "group_size",
            1,
            r"is 1, expected a whole number in \[2, inf\)",
        ),
        (EPOCHS, "n_epochs", 0, r"is 0, expected a whole number in \[1, inf\)"),
        (EPOCHS, "n_minibatches", 17, "is 17, expected at most n_prompts = 16"),
        (ALL, "gradient_accumulation", 0, r"is 0, expected a whole number in \[1, inf\)"),
        (ALL, "lora_rank", 0, r"is 0, expected a whole number in \[1, inf\)"),
        (ALL, "lora_alpha", 0, r"is 0, expected a number in \(0, inf\)"),
        (SAMPLING, "temperature", 0, r"is 0, expected a number in \(0, inf\)"),
        (SAMPLING, "top_k", 1, r"is 1, expected a whole number in \[2, inf\)"),
        (SAMPLING, "top_p", 0, r"is 0, expected a number in \(0, 1\]"),
        (CLIPPED, "clip_range", 0, r"is 0, expected a number in \(0, inf\)"),
        (CLIPPED, "stop_kl", 0, r"is 0, expected a number in \(0, inf\)"),
        ((NLPOConfig,), "mask_every", 0, r"is 0, expected a whole number in \[1, inf\)"),
        ((ReinforceConfig,), "baseline", "value", "is 'value', expected 'running' or 'prompt'"),
        ((ReinforceConfig,), "baseline_decay", 1.5, r"is 1.5, expected a number in \[0, 1\]"),
        ((OnlineDPOConfig,), "pair_labels", "sharp", "is 'sharp', expected 'soft' or 'hard'"),
        ((JointConfig,), "ranking_coef", 0, r"is 0, expected a number in \(0, inf\)"),
        ((PPOPtxConfig,), "ptx_coef", 0, r"is 0, expected a number in \(0, inf\)"),
        ((PPOPtxConfig,), "ptx_batch_size", 0, r"is 0, expected a whole number in \[1, inf\)"),
        ((ConditionedConfig,), "n_ranks", 1, r"is 1, expected a whole number in \[2, inf\)"),
        ((ConditionedConfig,), "n_ranks", 200, r"is 200, expected at most n_prompts times group_size = \d+, because"),
        ((ConditionedConfig,), "n_steps", 0, r"is 0, expected a whole number in \[1, inf\)"),
        ((ConditionedConfig,), "rank_learning_rate", 0, r"is 0, expected a number in \(0, inf\)"),
        ((ConditionedConfig,), "kl_coef", -0.1, r"is -0.1, expected a number in \[0, inf\)"),
        ((ContextDistillationConfig,), "n_exemplars", 0, r"is 0, expected a whole number in \[1, inf\)"),
        ((ContextDistillationConfig,), "n_prompts", 0.5, "is 0.5, expected a whole number"),
        ((ContextDistillationConfig,), "context", " ", "is ' ', expected a text that is not blank"),
        ((*OFFLINE, ConditionedConfig), "batch_size", 0, r"is 0, expected a whole number in \[1, inf\)"),
        (
            (DPOConfig, OnlineDPOConfig),
            "loss",
            "probit",
            "is 'probit', expected 'sigmoid' or 'ipo' or 'hinge' or 'robust'",
        ),
        ((DPOConfig, OnlineDPOConfig), "label_smoothing", 0.6, r"is 0.6, expected a number in \[0, 0.5\]"),
        ((DPOConfig, OnlineDPOConfig), "label_smoothing", 0.5, "is 0.5, so that a label would tell nothing"),
    ],
)
def test_bad_settings_name_field_value_and_range(
    config_classes: tuple[type[Any], ...], field: str, value: Any, wanted: str
) -> None:
    for config_class in config_classes:
        with pytest.raises(UsageError, match=f"{config_class.__name__}.{field} {wanted}"):
            config_class(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("lora_alpha", 8.0), ("lora_modules", "c_attn")])
def test_adapters_are_described_only_where_there_are_some(field: str, value: Any) -> None:
    for config_class in ALL:
        with pytest.raises(UsageError, match=rf"{config_class.__name__}\.{field} is {value!r}, but lora_rank is None"):
            config_class(**{field: value})
        assert getattr(config_class(**{field: value}, lora_rank=2), field) == value


def test_a_value_need_not_be_clipped() -> None:
    assert PPOConfig(clip_range_vf=None).clip_range_vf is None


def test_a_running_baseline_needs_no_group() -> None:
    assert ReinforceConfig(group_size=1).group_size == 1
    with pytest.raises(UsageError, match="group_size is 1, expected a whole number in"):
        ReinforceConfig(group_size=1, baseline="prompt")


def test_a_label_smoothing_goes_with_the_losses_that_have_one() -> None:
    assert DPOConfig(label_smoothing=0.1).loss == "sigmoid"
    assert DPOConfig(loss="robust", label_smoothing=0.1).label_smoothing == 0.1
    with pytest.raises(UsageError, match="label_smoothing is 0, with which the loss 'robust' is 'sigmoid'"):
        DPOConfig(loss="robust")
    with pytest.raises(UsageError, match=r"label_smoothing is 0\.1, but the loss 'ipo' has none"):
        DPOConfig(loss="ipo", label_smoothing=0.1)
