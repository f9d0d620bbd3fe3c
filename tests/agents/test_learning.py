"""Real learning: on Exact-v0 judged by enumeration, on Concierge by the known optimum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.a2c import A2C, A2CConfig
from agents.checks.exact_worth import exact_worth
from agents.conditioned import Conditioned, ConditionedConfig
from agents.dpo import DPO, DPOConfig
from agents.dr_grpo import DrGRPO, DrGRPOConfig
from agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from agents.grpo import GRPO, GRPOConfig
from agents.language_agent import LanguageModelAgent
from agents.online_dpo import OnlineDPO, OnlineDPOConfig
from agents.ppo import PPO, PPOConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.rlhf import Loop, RLHFConfig, prepare
from agents.rloo import RLOO, RLOOConfig
from agents.run_folder import RunFolder
from textenv.enumeration import all_logprobs, exact_objective, exact_optimum, total_variation
from textenv.tasks.concierge import Concierge
from textenv.vector_env import TextVectorEnv


def share_of_optimum(agent: LanguageModelAgent) -> float:
    env = agent.env
    arguments: Any = (env.reference, env.reward_function, env.beta)
    start = exact_objective(env.task, env.reference, *arguments).objective
    reached = exact_objective(env.task, agent.language_model, *arguments).objective
    best = exact_optimum(env.task, *arguments).value.objective
    return float((reached - start) / (best - start))


class Nobody:
    """Listens to nothing and stops nothing."""

    def progress(self, stage: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        pass

    def end(self, stage: str, seconds: float) -> None:
        pass

    def stopping(self) -> bool:
        return False


def summary_of(config: RLHFConfig, folder: Path) -> dict[str, Any]:
    setting = prepare(config)
    with RunFolder.create(folder / "run", setting.config.to_json(), threads=1, created="2026-01-01") as run:
        return Loop(setting, run, Nobody()).run()


def test_ppo_reaches_the_optimum() -> None:
    agent = PPO(TextVectorEnv("exact", kl="full"), PPOConfig(n_prompts=16, group_size=16), 0)
    assert share_of_optimum(agent) == pytest.approx(0, abs=1e-6)
    agent.learn(100_000)
    assert share_of_optimum(agent) > 0.95


@pytest.mark.parametrize(
    ("agent_class", "config", "least"),
    [
        pytest.param(Reinforce, ReinforceConfig(), 0.9, id="reinforce", marks=pytest.mark.slow),
        pytest.param(RLOO, RLOOConfig(), 0.85, id="rloo", marks=pytest.mark.slow),
        pytest.param(OnlineDPO, OnlineDPOConfig(learning_rate=1e-3), 0.8, id="online-dpo", marks=pytest.mark.slow),
        pytest.param(ExpertIteration, ExpertIterationConfig(), 0.6, id="expert-iteration", marks=pytest.mark.slow),
        pytest.param(Conditioned, ConditionedConfig(), 0.55, id="conditioned", marks=pytest.mark.slow),
        # It does not climb J, and stays behind in any budget.
        pytest.param(GRPO, GRPOConfig(), 0.65, id="grpo", marks=pytest.mark.slow),
    ],
)
def test_comes_far_in_a_small_budget(agent_class: type[LanguageModelAgent], config: Any, least: float) -> None:
    agent: Any = agent_class(TextVectorEnv("exact", kl="full"), config, 0)
    agent.learn(40_000)
    assert share_of_optimum(agent) > least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent_class", "config", "least"),
    [
        pytest.param(PPO, PPOConfig(n_prompts=16, group_size=16), 0.97, id="ppo"),
        pytest.param(A2C, A2CConfig(n_prompts=16, group_size=16), 0.97, id="a2c"),
        pytest.param(Reinforce, ReinforceConfig(n_prompts=16, group_size=16), 0.97, id="reinforce"),
        pytest.param(RLOO, RLOOConfig(n_prompts=16, group_size=16), 0.97, id="rloo"),
        # 0.96 here, and 0.97 in twice the tokens (benchmarks/results/exact-long).
        pytest.param(DrGRPO, DrGRPOConfig(n_prompts=16, group_size=16), 0.94, id="dr-grpo"),
    ],
)
def test_comes_close_to_the_best_policy(agent_class: type[LanguageModelAgent], config: Any, least: float) -> None:
    agent: Any = agent_class(TextVectorEnv("exact", kl="full"), config, 0)
    agent.learn(300_000)
    env = agent.env
    assert share_of_optimum(agent) >= least
    best = exact_optimum(env.task, env.reference, env.reward_function, env.beta).logprobs
    distance = total_variation(all_logprobs(env.task, agent.language_model).double(), best)
    assert float(distance.mean()) < 0.15


def test_dpo_learns_from_the_truths_comparisons_alone() -> None:
    data = exact_worth().preferences
    agent = DPO(TextVectorEnv("exact", kl="full"), DPOConfig(batch_size=64, learning_rate=1e-3), 0, data)
    agent.learn(60_000)
    assert share_of_optimum(agent) > 0.75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "reward", "least"),
    [("ppo", "gold", 0.7), ("a2c", "gold", 0.5), ("rloo", "gold", 0.7), ("grpo", "gold", 0.6)],
)
def test_gains_the_share_of_concierges_optimum_in_the_default_budget(
    agent: str, reward: str, least: float, tmp_path: Path
) -> None:
    assert summary_of(RLHFConfig(agent=agent, reward=reward), tmp_path)["share"] > least


@pytest.mark.slow
def test_truth_rises_by_half_of_the_way_to_the_best_of_64_with_the_default_learned_reward(tmp_path: Path) -> None:
    summary = summary_of(RLHFConfig(), tmp_path)
    best_of_64 = json.loads((Concierge.folder / "truth.json").read_text())["best_of_64_mean"]
    assert summary["gold_after"] > (summary["gold_before"] + best_of_64) / 2
