"""What all our agents have in common, tried with each of them."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Dict
from torch.utils.checkpoint import checkpoint

from agents import AGENTS, policy
from agents.a2c import A2C, A2CConfig
from agents.checks.exact_worth import exact_worth
from agents.conditioned import Conditioned, ConditionedConfig
from agents.context_distillation import ContextDistillation, ContextDistillationConfig
from agents.dpo import DPO, DPOConfig
from agents.dr_grpo import DrGRPO, DrGRPOConfig
from agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from agents.grpo import GRPO, GRPOConfig
from agents.joint import Joint, JointConfig
from agents.language_agent import LanguageModelAgent
from agents.nlpo import NLPO, NLPOConfig
from agents.online_dpo import OnlineDPO, OnlineDPOConfig
from agents.ppo import PPO, PPOConfig
from agents.ppo_ptx import PPOPtx, PPOPtxConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.rloo import RLOO, RLOOConfig
from agents.rollout import RolloutConfig
from agents.sft import SFT, SFTConfig
from textenv.decoding import next_token_logprobs
from textenv.demonstrations import Demonstrations
from textenv.errors import TextenvError, UsageError
from textenv.responses import Responses
from textenv.rewards import GoldReward
from textenv.sampling import NEUTRAL
from textenv.tasks.exact import Exact
from textenv.vector_env import TextVectorEnv

SMALL: dict[str, tuple[type[LanguageModelAgent], Any]] = {
    "ppo": (PPO, PPOConfig(n_prompts=4, group_size=2, n_minibatches=2)),
    "ppo-two-trunks": (PPO, PPOConfig(n_prompts=4, group_size=2, n_minibatches=2, separate_value=True)),
    "ppo-adaptive": (PPO, PPOConfig(n_prompts=4, group_size=2, n_minibatches=2, kl_target=0.5, whiten_rewards=True)),
    "ppo-lora": (PPO, PPOConfig(n_prompts=4, group_size=2, lora_rank=2, separate_value=True, gradient_accumulation=2)),
    "ppo-stopping": (PPO, PPOConfig(n_prompts=4, group_size=2, n_epochs=4, stop_kl=1e-6, temperature=0.8)),
    "nlpo": (NLPO, NLPOConfig(n_prompts=4, group_size=2, mask_every=2)),
    "nlpo-lora": (NLPO, NLPOConfig(n_prompts=4, group_size=2, mask_every=2, lora_rank=2, top_k=5)),
    "ppo-ptx": (PPOPtx, PPOPtxConfig(n_prompts=4, group_size=2, n_minibatches=2, ptx_batch_size=4)),
    "a2c": (A2C, A2CConfig(n_prompts=4, group_size=2)),
    "a2c-two-trunks": (A2C, A2CConfig(n_prompts=4, group_size=2, separate_value=True, whiten_rewards=True)),
    "reinforce": (Reinforce, ReinforceConfig(n_prompts=4, group_size=2)),
    "reinforce-top-k": (Reinforce, ReinforceConfig(n_prompts=4, group_size=2, top_k=3)),
    "reinforce-prompt": (Reinforce, ReinforceConfig(n_prompts=4, group_size=2, baseline="prompt")),
    "rloo": (RLOO, RLOOConfig(n_prompts=4, group_size=2, n_epochs=2, n_minibatches=2)),
    "grpo": (GRPO, GRPOConfig(n_prompts=4, group_size=2, n_epochs=2, n_minibatches=2)),
    "grpo-adaptive": (GRPO, GRPOConfig(n_prompts=4, group_size=2, kl_target=0.5, scale_rewards=False)),
    "dr-grpo": (DrGRPO, DrGRPOConfig(n_prompts=4, group_size=2, n_epochs=2, n_minibatches=2)),
    "dr-grpo-top-p": (DrGRPO, DrGRPOConfig(n_prompts=4, group_size=2, top_p=0.8, gradient_accumulation=3)),
    "expert-iteration": (ExpertIteration, ExpertIterationConfig(n_prompts=4, group_size=2)),
    "conditioned": (Conditioned, ConditionedConfig(n_prompts=4, group_size=2, n_steps=2, batch_size=6)),
    "conditioned-lora": (
        Conditioned,
        ConditionedConfig(n_prompts=4, group_size=2, n_steps=2, batch_size=6, lora_rank=2, gradient_accumulation=3),
    ),
    "context-distillation": (ContextDistillation, ContextDistillationConfig(n_prompts=4, group_size=2)),
    "sft": (SFT, SFTConfig(batch_size=4)),
    "joint": (Joint, JointConfig(batch_size=4)),
    "dpo": (DPO, DPOConfig(batch_size=4)),
    "dpo-lora": (DPO, DPOConfig(batch_size=4, lora_rank=2, lora_modules="q_proj,v_proj")),
    "dpo-robust": (DPO, DPOConfig(batch_size=4, loss="robust", label_smoothing=0.1)),
    "online-dpo": (OnlineDPO, OnlineDPOConfig(n_prompts=4, group_size=3)),
}
SLOW = ("nlpo-lora", "conditioned-lora", "dpo-lora")
"""Of those with adapters one is tried by default."""
FROM_ROLLOUTS = [name for name, (_, config) in SMALL.items() if isinstance(config, RolloutConfig)]
# The others learn from responses of all rollouts so far, and of none before all others.
FROM_FRESH_ONES = [name for name in FROM_ROLLOUTS if SMALL[name][0] is not Conditioned]


def each(names: Iterable[str]) -> list[Any]:
    """The agents to try a test with."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in names]


class Broken:
    """The gold reward, until it breaks at a given call."""

    name = "broken"

    def __init__(self, call: int) -> None:
        self.gold = GoldReward(Exact())
        self.calls_left = call

    def __call__(self, responses: Responses) -> torch.Tensor:
        self.calls_left -= 1
        scores = self.gold(responses)
        return scores if self.calls_left else scores * 1e30


def maker(name: str, **settings: Any) -> Any:
    agent_class, config = SMALL[name]
    config = dataclasses.replace(config, **settings)
    # So few comparisons that a pass over them ends between the iterations that are looked at.
    data: Any = None
    if agent_class.learns_from == "preferences":
        data = exact_worth().preferences[torch.arange(18)]
    elif agent_class.learns_from == "demonstrations":
        data = Demonstrations(exact_worth().demonstrations.responses.groups(torch.arange(18)))

    def make_agent(seed: int = 0, **env: Any) -> LanguageModelAgent:
        return agent_class(TextVectorEnv("exact", kl="full", **env), config, seed, data)

    return make_agent


@pytest.fixture(params=each(SMALL))
def make(request: pytest.FixtureRequest) -> Any:
    return maker(request.param)


def weights(agent: OnPolicyAgent) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.policy.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def stop_after(iterations: int) -> Any:
    seen = []

    def callback(agent: OnPolicyAgent, metrics: dict[str, float]) -> bool:
        seen.append(metrics)
        return len(seen) < iterations

    return callback


def test_every_agent_is_among_them() -> None:
    # Best-of-n is no language model, and has tests of its own.
    assert {agent_class.name for agent_class, _ in SMALL.values()} == AGENTS.keys() - {"best-of-n"}


def test_a_seed_fixes_the_weights(make: Any) -> None:
    first, again, other = make(0), make(0), make(1)
    start = weights(first)
    for agent in (first, again, other):
        agent.learn(10_000, stop_after(2))
    assert equal(weights(first), weights(again))
    assert not equal(weights(first), weights(other))
    assert not equal(weights(first), start)


def test_going_on_from_a_folder_is_going_on(make: Any, tmp_path: Path) -> None:
    straight = make()
    straight.learn(10_000, stop_after(6))
    stopped = make()
    stopped.learn(10_000, stop_after(3))
    stopped.save(tmp_path / "agent")
    loaded = type(stopped).load(tmp_path / "agent", TextVectorEnv("exact", kl="full"))
    assert loaded.num_timesteps == stopped.num_timesteps
    assert loaded.config == stopped.config
    loaded.learn(10_000, stop_after(3))
    stopped.learn(10_000, stop_after(3))
    assert equal(weights(loaded), weights(straight))
    assert equal(weights(stopped), weights(straight))
    assert loaded.num_timesteps == straight.num_timesteps
    assert loaded.env.beta == straight.env.beta


@pytest.mark.parametrize("name", each(SMALL))
def test_parts_that_take_turns_leave_the_same_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration with all its optimiser steps, which are the same up to rounding; see `gradient_accumulation`."""
    taken: list[Any] = []

    def counting(*arguments: Any, **keywords: Any) -> Any:
        taken.append(arguments)
        return checkpoint(*arguments, **keywords)

    monkeypatch.setattr(policy, "checkpoint", counting)
    start = weights(maker(name)())
    after, turns = [], []
    for parts in (1, 3):
        taken.clear()
        agent = maker(name, precision="float32", gradient_accumulation=parts)()
        agent.learn(10_000, stop_after(1))
        after.append(weights(agent))
        turns.append(len(taken))
    assert turns[0] == 0 < turns[1]
    assert not equal(after[0], start)
    # A hundredth of one of Adam's steps; rounding makes less than a thousandth.
    for whole, in_turns in zip(*after, strict=True):
        assert float((in_turns - whole).abs().max()) < 0.01 * agent.config.learning_rate


def test_stops_at_the_first_iteration_that_reaches_the_tokens(make: Any) -> None:
    agent, ends, rates = make(), [], []

    def callback(agent: OnPolicyAgent, metrics: dict[str, float]) -> bool:
        ends.append(agent.num_timesteps)
        rates.append(metrics["learning_rate"])
        return True

    agent.learn(100, callback)
    assert ends[-1] >= 100 > ends[-2]
    full = agent.config.learning_rate
    assert rates == pytest.approx([full, *(full * (1 - tokens / 100) for tokens in ends[:-1])])
    agent.learn(100, callback)
    assert agent.num_timesteps == ends[-1]


def test_the_learning_rate_goes_as_the_schedule_has_it() -> None:
    config = A2CConfig(n_prompts=4, group_size=2, lr_schedule="constant", lr_warmup=0.5)
    agent, ends, rates = A2C(TextVectorEnv("exact", kl="full"), config, 0), [0], []

    def callback(agent: A2C, metrics: dict[str, float]) -> bool:
        ends.append(agent.num_timesteps)
        rates.append(metrics["learning_rate"])
        return True

    agent.learn(150, callback)
    assert rates == pytest.approx([1e-3 * min(1.0, 0.1 + 0.9 * tokens / 75) for tokens in ends[:-1]])
    assert min(rates) < max(rates) == 1e-3


@pytest.mark.parametrize("name", each(FROM_FRESH_ONES))
def test_new_and_old_policy_are_one_at_the_first_step(name: str) -> None:
    metrics: list[dict[str, float]] = []
    maker(name)().learn(200, lambda agent, numbers: metrics.append(numbers) is None)
    assert len(metrics) > 1
    assert max(numbers["ratio_deviation"] for numbers in metrics) < 1e-3


@pytest.mark.parametrize("name", each(FROM_ROLLOUTS))
def test_metrics_of_rollouts_are_all_there_and_finite(name: str) -> None:
    metrics: list[dict[str, float]] = []
    maker(name)().learn(1, lambda agent, numbers: metrics.append(numbers) is None)
    expected = {
        "reward",
        "gold",
        "utility",
        "kl",
        "kl_k2",
        "kl_k3",
        "objective",
        "entropy",
        "beta",
        "learning_rate",
        "grad_norm",
    }
    expected |= {"response_length", "eos_rate"} | ({"ratio_deviation"} if name in FROM_FRESH_ONES else set())
    # Of those that clip, a share of the tokens or of the responses.
    clips = hasattr(SMALL[name][1], "clip_range")
    assert (0 <= metrics[0]["clip_fraction"] <= 1) if clips else ("clip_fraction" not in metrics[0])
    assert expected <= set(metrics[0])
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics[0].values())
    if SMALL[name][1].sampling == NEUTRAL:  # Else it begins elsewhere than the reference.
        assert metrics[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_predict_fits_the_action_space(make: Any) -> None:
    agent = make()
    env = TextVectorEnv("exact", kl="full", num_envs=5)
    observation, _ = env.reset(seed=0)
    before = copy.deepcopy(observation)
    action, state = agent.predict(observation)
    assert state is None
    assert env.action_space.contains(action)
    logprobs = agent.logprobs(observation)
    assert logprobs.shape == (5, env.reference.vocab_size)
    torch.testing.assert_close(logprobs.exp().sum(dim=1), torch.ones(5))
    assert action["logprob"].tolist() == [
        row[token].item() for row, token in zip(logprobs, action["token"], strict=True)
    ]
    best, _ = agent.predict(observation, deterministic=True)
    assert best["token"].tolist() == logprobs.argmax(dim=1).tolist()
    env.step(action)
    assert all((observation[name] == before[name]).all() for name in before)
    assert isinstance(env.single_action_space, Dict)
    one, _ = agent.predict({name: batch[0] for name, batch in observation.items()}, deterministic=True)
    assert env.single_action_space.contains(one)


def test_predicting_does_not_disturb_learning(make: Any) -> None:
    quiet, asked = make(), make()
    observation, _ = TextVectorEnv("exact", kl="full").reset(seed=0)

    def callback(agent: OnPolicyAgent, metrics: dict[str, float]) -> bool:
        agent.predict(observation)
        return True

    quiet.learn(60)
    asked.learn(60, callback)
    assert equal(weights(quiet), weights(asked))


def test_the_language_model_is_the_policy(make: Any) -> None:
    agent = make()
    agent.learn(60)
    observation, _ = TextVectorEnv("exact", kl="full", num_envs=2).reset(seed=0)
    ids, mask = torch.as_tensor(observation["input_ids"]), torch.as_tensor(observation["attention_mask"]).bool()
    policy = agent.language_model
    expected = next_token_logprobs(policy.model, ids, mask, policy.sampling)
    torch.testing.assert_close(agent.logprobs(observation), expected)
    reference = next_token_logprobs(agent.env.reference.model, ids, mask)
    assert not torch.allclose(agent.logprobs(observation), reference)


# What has no size that could explode: advantages in standard deviations of their group, a margin's slope, a choice,
# a rank.
BOUNDED = ("grpo", "online-dpo", "expert-iteration", "conditioned", "conditioned-lora")


@pytest.mark.parametrize("name", each(name for name in FROM_ROLLOUTS if name not in BOUNDED))
def test_a_reward_that_explodes_stops_before_the_weights_are_spoilt(name: str) -> None:
    agent, last = maker(name)(reward_function=Broken(call=3)), []

    def callback(agent: OnPolicyAgent, metrics: dict[str, float]) -> bool:
        last.append(weights(agent))
        return True

    with pytest.raises(TextenvError, match=r"the (reward|value loss|norm of the gradient) became"):
        agent.learn(10_000, callback)
    assert len(last) == 2
    assert equal(weights(agent), last[-1])


def test_gradients_are_clipped_and_their_norm_reported() -> None:
    agent = A2C(TextVectorEnv("exact", kl="full"), A2CConfig(max_grad_norm=0.5), 0)
    norm = agent.step({"policy loss": 10 * torch.stack([weight.sum() for weight in agent.policy.parameters()]).sum()})
    count = sum(weight.numel() for weight in agent.policy.parameters())
    assert norm == pytest.approx(10 * count**0.5, rel=1e-4)
    clipped = [weight.grad for weight in agent.policy.parameters() if weight.grad is not None]
    assert torch.cat([gradient.flatten() for gradient in clipped]).norm().item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["ppo-adaptive", "grpo-adaptive"])
def test_adaptive_beta_is_carried_by_the_environment(name: str) -> None:
    agent = maker(name)(beta=0.5)
    metrics: list[dict[str, float]] = []
    agent.learn(1, lambda agent, numbers: metrics.append(numbers) is None)
    assert metrics[0]["beta"] == 0.5
    # The KL of the first rollout is 0, far below its target.
    assert agent.env.beta == pytest.approx(0.49)


def test_a_kl_target_that_cannot_be_steered_to_is_refused() -> None:
    with pytest.raises(UsageError, match="start from a positive beta"):
        maker("ppo-adaptive")(beta=0.0).learn(1)


def test_what_an_agent_cannot_learn_from_is_refused(tmp_path: Path) -> None:
    env = TextVectorEnv("exact", kl="full")
    with pytest.raises(UsageError, match="kl='reference'"):
        PPO(TextVectorEnv("exact", kl="reference"), PPOConfig(), 0)
    with pytest.raises(UsageError, match="ppo takes a PPOConfig, got a A2CConfig"):
        PPO(env, A2CConfig(), 0)
    with pytest.raises(UsageError, match="leave `data` out"):
        PPO(env, PPOConfig(), 0, data="preferences")
    with pytest.raises(UsageError, match="is not a saved agent"):
        PPO.load(tmp_path, env)
    A2C(env, A2CConfig(), 0).save(tmp_path / "a2c")
    with pytest.raises(UsageError, match="holds the agent 'a2c', expected 'ppo'"):
        PPO.load(tmp_path / "a2c", env)


@pytest.mark.parametrize("missing", ["config", "seed", "num_timesteps", "beta", "prompts"])
def test_a_saved_agent_of_another_version_is_refused(tmp_path: Path, missing: str) -> None:
    env = TextVectorEnv("exact", kl="full")
    A2C(env, A2CConfig(), 0).save(tmp_path / "a2c")
    file = tmp_path / "a2c" / "agent.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != missing}))
    with pytest.raises(UsageError, match=f"not saved by this version of a2c.*{missing}"):
        A2C.load(tmp_path / "a2c", env)
