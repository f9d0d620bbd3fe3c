from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Dict

from agents.a2c import A2C, A2CConfig
from agents.on_policy import OnPolicyAgent, collect, rollout_metrics
from agents.ppo import PPO, PPOConfig
from textenv.decoding import next_token_logprobs
from textenv.errors import TextenvError, UsageError
from textenv.kl import k1, k3
from textenv.responses import Responses
from textenv.rewards import GoldReward
from textenv.tasks.exact import Exact
from textenv.vector_env import TextVectorEnv

SMALL: dict[str, tuple[type[OnPolicyAgent], Any]] = {
    "ppo": (PPO, PPOConfig(n_prompts=4, group_size=2, n_minibatches=2)),
    "ppo-two-trunks": (PPO, PPOConfig(n_prompts=4, group_size=2, n_minibatches=2, separate_value=True)),
    "ppo-adaptive": (PPO, PPOConfig(n_prompts=4, group_size=2, n_minibatches=2, kl_target=0.5, whiten_rewards=True)),
    "a2c": (A2C, A2CConfig(n_prompts=4, group_size=2)),
    "a2c-two-trunks": (A2C, A2CConfig(n_prompts=4, group_size=2, separate_value=True, whiten_rewards=True)),
}


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


@pytest.fixture(params=SMALL)
def make(request: pytest.FixtureRequest) -> Any:
    agent_class, config = SMALL[request.param]

    def make_agent(seed: int = 0, **env: Any) -> OnPolicyAgent:
        return agent_class(TextVectorEnv("exact", kl="full", **env), config, seed)

    return make_agent


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


def test_the_values_begin_at_the_mean_reward_to_come_and_their_head_takes_its_own_steps(make: Any) -> None:
    agent = make()
    rewards = torch.tensor([[1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    agent.begin_values(rewards, mask)
    # To come: 3, 2, 2 and 5.
    assert agent.policy.value_head.bias.item() == pytest.approx(3.0)
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
    agent.begin_values(rewards * 2, mask)
    assert agent.policy.value_head.bias.item() == pytest.approx(3.0)


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


def test_new_and_old_policy_are_one_at_the_first_step(make: Any) -> None:
    metrics: list[dict[str, float]] = []
    make().learn(200, lambda agent, numbers: metrics.append(numbers) is None)
    assert len(metrics) > 1
    assert max(numbers["ratio_deviation"] for numbers in metrics) < 1e-3


def test_metrics_are_all_there_and_finite(make: Any) -> None:
    metrics: list[dict[str, float]] = []
    make().learn(1, lambda agent, numbers: metrics.append(numbers) is None)
    expected = {
        "reward",
        "gold",
        "utility",
        "kl",
        "kl_k3",
        "objective",
        "entropy",
        "beta",
        "learning_rate",
        "grad_norm",
    }
    assert expected | {"response_length", "eos_rate", "explained_variance", "ratio_deviation"} <= set(metrics[0])
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics[0].values())
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_rollout_metrics_by_recomputing() -> None:
    env = TextVectorEnv("exact", kl="full", beta=0.1)
    env.reset(seed=0)
    policy = env.reference.copy()
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(1.5)
    rollout = collect(env, policy, 8, 2, torch.Generator().manual_seed(0))
    metrics = rollout_metrics(rollout, env)
    rows = rollout.responses.to_lists()
    episodes = list(zip(rollout.logprobs, rollout.scores.reference_logprobs, rows, strict=True))
    kl = np.mean([k1(p[: len(row)], q[: len(row)]).sum().item() for p, q, row in episodes])
    assert metrics["kl"] == pytest.approx(kl, abs=1e-5)
    assert metrics["kl_k3"] == pytest.approx(
        np.mean([k3(p[: len(row)], q[: len(row)]).sum().item() for p, q, row in episodes]), abs=1e-5
    )
    assert metrics["response_length"] * len(rows) == rollout.tokens == sum(map(len, rows))
    assert metrics["eos_rate"] == np.mean([row[-1] == env.eos_id for row in rows])
    assert metrics["reward"] == pytest.approx(rollout.scores.score.mean().item())
    # The objective is judged at the task's beta, not at the one that is trained with.
    assert metrics["objective"] == pytest.approx(metrics["reward"] - env.task.beta * kl, abs=1e-5)
    assert metrics["beta"] == 0.1


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
    torch.testing.assert_close(agent.logprobs(observation), next_token_logprobs(agent.language_model.model, ids, mask))
    reference = next_token_logprobs(agent.env.reference.model, ids, mask)
    assert not torch.allclose(agent.logprobs(observation), reference)


def test_a_reward_that_explodes_stops_before_the_weights_are_spoilt(make: Any) -> None:
    agent, last = make(reward_function=Broken(call=3)), []

    def callback(agent: OnPolicyAgent, metrics: dict[str, float]) -> bool:
        last.append(weights(agent))
        return True

    with pytest.raises(TextenvError, match=r"the (reward|value loss|norm of the gradient) became"):
        agent.learn(10_000, callback)
    assert len(last) == 2
    assert equal(weights(agent), last[-1])


def test_a_spoilt_weight_is_named_by_what_it_spoils() -> None:
    agent_class, config = SMALL["ppo"]
    agent = agent_class(TextVectorEnv("exact", kl="full"), config, 0)
    with torch.no_grad():
        agent.policy.value_head.weight.fill_(float("nan"))
    with pytest.raises(TextenvError, match="became nan"):
        agent.learn(100)


def test_gradients_are_clipped_and_their_norm_reported() -> None:
    agent = A2C(TextVectorEnv("exact", kl="full"), A2CConfig(max_grad_norm=0.5), 0)
    norm = agent.step({"policy loss": 10 * torch.stack([weight.sum() for weight in agent.policy.parameters()]).sum()})
    count = sum(weight.numel() for weight in agent.policy.parameters())
    assert norm == pytest.approx(10 * count**0.5, rel=1e-4)
    clipped = [weight.grad for weight in agent.policy.parameters() if weight.grad is not None]
    assert torch.cat([gradient.flatten() for gradient in clipped]).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_adaptive_beta_is_carried_by_the_environment() -> None:
    agent_class, config = SMALL["ppo-adaptive"]
    env = TextVectorEnv("exact", kl="full", beta=0.5)
    metrics: list[dict[str, float]] = []
    agent_class(env, config, 0).learn(1, lambda agent, numbers: metrics.append(numbers) is None)
    assert metrics[0]["beta"] == 0.5
    # The KL of the first rollout is 0, far below its target.
    assert env.beta == pytest.approx(0.49)


def test_what_an_agent_cannot_learn_from_is_refused(tmp_path: Path) -> None:
    env = TextVectorEnv("exact", kl="full")
    with pytest.raises(UsageError, match="kl='reference'"):
        PPO(TextVectorEnv("exact", kl="reference"), PPOConfig(), 0)
    with pytest.raises(UsageError, match="ppo takes a PPOConfig, got a A2CConfig"):
        PPO(env, A2CConfig(), 0)
    with pytest.raises(UsageError, match="leave `data` out"):
        PPO(env, PPOConfig(), 0, data="preferences")  # type: ignore[arg-type]  # Wrong on purpose.
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
