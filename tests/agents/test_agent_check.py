"""`check_agent` lets sound agents pass, and catches each kind of broken one by the check that is meant for it."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from agents import check_agent
from agents.a2c import A2C, A2CConfig
from agents.agent_check import CHECKS, CheckResult
from agents.checks import interface, learning
from agents.checks.trial import Broken, Trial, global_state
from agents.ppo import PPO, PPOConfig
from textenv.enumeration import exact_objective
from textenv.errors import UsageError

SMALL = A2CConfig(n_prompts=8, group_size=4)
TOKENS = 1000


class WithoutSeed(A2C):
    def __init__(self, env: Any, config: Any) -> None:
        super().__init__(env, config, 0)


class NeverStops(A2C):
    def learn(self, total_timesteps: int, callback: Any = None) -> None:
        def told(agent: Any, metrics: dict[str, float]) -> bool:
            callback(agent, metrics)
            return True

        super().learn(total_timesteps, None if callback is None else told)


class SpoilsReference(A2C):
    def learn(self, total_timesteps: int, callback: Any = None) -> None:
        super().learn(total_timesteps, callback)
        with torch.no_grad():
            next(self.env.reference.model.parameters()).add_(0.01)


class AlwaysDraws(A2C):
    def predict(
        self, observation: Any, state: None = None, episode_start: None = None, deterministic: bool = False
    ) -> Any:
        return super().predict(observation)


class DrawsColder(A2C):
    """Says how likely each token truly is, but draws at another temperature."""

    def predict(
        self, observation: Any, state: None = None, episode_start: None = None, deterministic: bool = False
    ) -> Any:
        logprobs = self.logprobs(observation)
        token = logprobs.argmax(dim=1, keepdim=True)
        if not deterministic:
            token = torch.multinomial((logprobs / 0.7).softmax(dim=1), 1, generator=self.generators["prediction"])
        shape = np.shape(observation["input_ids"])[:-1]
        parts = {"token": token, "logprob": logprobs.gather(1, token)}
        return {name: part.numpy().reshape(shape) for name, part in parts.items()}, None


class OwnSeed(A2C):
    def __init__(self, env: Any, config: Any, seed: int, data: None = None) -> None:
        super().__init__(env, config, int.from_bytes(os.urandom(3)))


class DrawsGlobally(A2C):
    def learn(self, total_timesteps: int, callback: Any = None) -> None:
        random.random()
        super().learn(total_timesteps, callback)


class Pickles(A2C):
    def save(self, path: Path) -> None:
        super().save(path)
        (path / "config.pkl").write_bytes(pickle.dumps(self.config))


class ForgetsMoments(A2C):
    @classmethod
    def load(cls, path: Path, env: Any) -> Self:
        agent = super().load(path, env)
        agent.optimizer.state.clear()
        return agent


class ReadsGold(A2C):
    def __init__(self, env: Any, config: Any, seed: int, data: None = None) -> None:
        super().__init__(env, config, seed)
        honest = env.score

        def score(responses: Any, logprobs: Any) -> Any:
            scores = honest(responses, logprobs)
            bonus = 0.1 * scores.gold.utility[:, None] * responses.mask
            return scores._replace(token_rewards=scores.token_rewards + bonus)

        env.score = score


@dataclass(frozen=True)
class Timid(A2CConfig):
    n_prompts: int = 8
    learning_rate: float = 1e-7


class HardlyLearns(A2C):
    config_class = Timid


BROKEN: dict[str, type[A2C]] = {
    "constructor": WithoutSeed,
    "learn": NeverStops,
    "reference is kept": SpoilsReference,
    "predict": AlwaysDraws,
    "logprobs": DrawsColder,
    "determinism": OwnSeed,
    "global random state": DrawsGlobally,
    "save and load": Pickles,
    "going on after load": ForgetsMoments,
    "gold is not read": ReadsGold,
    "improves": HardlyLearns,
}


def test_there_is_a_broken_agent_for_every_check() -> None:
    assert BROKEN.keys() == CHECKS.keys()


class Found(Exception):
    """Ends a trial at its first failure."""


def config_for(name: str) -> Any:
    return SMALL if BROKEN[name].config_class is A2CConfig else None


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_agent_is_caught_by_its_check(name: str) -> None:
    def report(check: str, result: CheckResult | None) -> None:
        if result is not None and result.failed:
            raise Found(check)

    with pytest.raises(Found, match=f"^{name}$"):
        check_agent(BROKEN[name], config=config_for(name), tokens=TOKENS, report=report)


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_agent_is_caught_by_its_check_alone(name: str) -> None:
    results = check_agent(BROKEN[name], config=config_for(name), tokens=TOKENS)
    assert [result.name for result in results] == list(CHECKS)
    assert [result.name for result in results if result.failed] == [name]
    assert all(result.message.startswith("not tested, since ") for result in results if result.outcome == "skipped")


@pytest.mark.parametrize(
    ("agent_class", "config"),
    [(A2C, SMALL), pytest.param(PPO, PPOConfig(n_prompts=8, group_size=4), marks=pytest.mark.slow)],
    ids=["a2c", "ppo"],
)
def test_our_agents_pass_and_are_followed_as_it_goes(agent_class: type[A2C], config: Any) -> None:
    torch.manual_seed(5)
    before = global_state()
    seen: list[Any] = []
    results = check_agent(agent_class, config=config, tokens=TOKENS, report=lambda *told: seen.append(told))
    assert {result.outcome for result in results} == {"passed"}, results
    assert seen == [pair for result in results for pair in ((result.name, None), (result.name, result))]
    assert global_state() == before


class Silent:
    """Chooses, but does not tell how likely what was."""

    config_class = A2CConfig

    def __init__(self, env: Any, config: Any, seed: int, data: None = None, inner: A2C | None = None) -> None:
        self._inner = inner or A2C(env, config, seed)

    @property
    def num_timesteps(self) -> int:
        return self._inner.num_timesteps

    def learn(self, total_timesteps: int, callback: Any = None) -> None:
        self._inner.learn(total_timesteps, callback and (lambda _, metrics: callback(self, metrics)))

    def predict(self, observation: Any, deterministic: bool = False) -> Any:
        return self._inner.predict(observation, deterministic=deterministic)

    def save(self, path: Path) -> None:
        self._inner.save(path)

    @classmethod
    def load(cls, path: Path, env: Any) -> Self:
        return cls(env, SMALL, 0, inner=A2C.load(path, env))


def test_without_logprobs_an_agent_is_told_what_it_forgoes_and_tried_by_its_draws() -> None:
    results = {result.name: result for result in check_agent(Silent, config=SMALL, tokens=TOKENS)}
    assert {name for name, result in results.items() if result.outcome != "passed"} == {"logprobs"}
    assert results["logprobs"].outcome == "skipped"
    assert "gold score only" in results["logprobs"].message
    assert "mean reward went from" in results["improves"].message


# What each check says of other ways to break it --------------------------------------------------


def trial_of(agent_class: Any, config: Any = SMALL) -> Trial:
    return Trial(agent_class, config, None, 0, TOKENS)


def trained(agent_class: Any) -> Trial:
    trial = trial_of(agent_class)
    interface.check_learn(trial)
    return trial


def variant(base: type[Any] = A2C, **members: Any) -> type[Any]:
    return type("Variant", (base,), members)


@dataclass(frozen=True)
class Listed(A2CConfig):
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Needy(A2CConfig):
    must: int = field(kw_only=True)


@pytest.mark.parametrize(
    ("agent_class", "message"),
    [
        (A2C(Trial(A2C, SMALL, None, 0, 1).env(), SMALL, 0), "is a A2C, expected the class of an agent"),
        (variant(save=None, predict=None), "lacks predict, save; agents.base.Agent tells"),
        (variant(config_class=None), "has no config_class"),
        (variant(config_class=Needy), "Needy, the config_class of 'Variant', has no default for must"),
        (variant(config_class=Listed), r"comes back from JSON, in which a run keeps it, as .*sizes=\[1, 2\]"),
        (variant(num_timesteps=property(lambda self: 7, lambda self, value: None)), "is 7, expected 0"),
    ],
)
def test_what_is_wrong_with_a_constructor(agent_class: Any, message: str) -> None:
    with pytest.raises((Broken, UsageError), match=message):
        interface.check_constructor(trial_of(agent_class, None))


def _learning(change: Callable[[A2C, int, Any], None]) -> type[Any]:
    return variant(learn=lambda self, total, callback=None: change(self, total, callback))


def _counts_anew(self: A2C, total: int, callback: Any) -> None:
    A2C.learn(self, self.num_timesteps + total, callback)


def _never_calls(self: A2C, total: int, callback: Any) -> None:
    A2C.learn(self, total)


def _does_not_count(self: A2C, total: int, callback: Any) -> None:
    while callback(self, {}):
        pass


def _stops_short(self: A2C, total: int, callback: Any) -> None:
    A2C.learn(self, 1, callback)


def _tells(*told: Any) -> Callable[[A2C, int, Any], None]:
    def learn(self: A2C, total: int, callback: Any) -> None:
        A2C.learn(self, total, lambda agent, metrics: callback(*(told or (metrics, agent))))

    return learn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_counts_anew, "total_timesteps counts from the agent's birth"),
        (_never_calls, "never called callback"),
        (_does_not_count, "num_timesteps was 0 after an iteration and 0 before"),
        (_stops_short, "ended at num_timesteps .* go on `while"),
        (_tells(), "gave callback something else than the agent itself"),
    ],
)
def test_what_is_wrong_with_learn(change: Any, message: str) -> None:
    with pytest.raises(Broken, match=message):
        interface.check_learn(trial_of(_learning(change)))


@pytest.mark.parametrize(
    "metrics", [{"loss": float("nan")}, {"loss": "0.1"}, {1: 0.1}, [0.1], {"loss": torch.zeros(2)}]
)
def test_metrics_are_finite_floats_by_name(metrics: Any) -> None:
    def learn(self: A2C, total: int, callback: Any) -> None:
        A2C.learn(self, total, lambda agent, _: callback(agent, metrics))

    with pytest.raises(Broken, match="expected are metrics as a dict of finite floats by name"):
        interface.check_learn(trial_of(_learning(learn)))


def _predicting(change: Callable[[Any], Any]) -> type[Any]:
    def predict(self: A2C, observation: Any, deterministic: bool = False) -> Any:
        return change(A2C.predict(self, observation, deterministic=deterministic))

    return variant(predict=predict)


def _spoils_observation(self: A2C, observation: Any, deterministic: bool = False) -> Any:
    answer = A2C.predict(self, observation, deterministic=deterministic)
    observation["input_ids"][...] = 0
    return answer


@pytest.mark.parametrize(
    ("agent_class", "message"),
    [
        (
            _predicting(lambda answer: answer[0]),
            r"returned a dict of 'token', 'logprob' for 65 observations, expected \(act",
        ),
        (
            _predicting(lambda answer: (answer[0]["token"], None)),
            r"gave the action ndarray of shape \(65,\), expected a dict",
        ),
        (
            _predicting(lambda answer: ({name: part.reshape(-1) for name, part in answer[0].items()}, None)),
            r"token as ndarray of shape \(1,\) for one observation, expected a NumPy array of shape \(\)",
        ),
        (
            _predicting(lambda answer: (answer[0] | {"token": answer[0]["token"].astype(float)}, None)),
            "token of type float64, expected whole numbers",
        ),
        (
            _predicting(lambda answer: (answer[0] | {"token": answer[0]["token"] + 7}, None)),
            "there is no token .* the vocabulary has 0 to 6",
        ),
        (
            _predicting(lambda answer: (answer[0] | {"logprob": answer[0]["logprob"] + 9}, None)),
            "the log-probability .* is none",
        ),
        (variant(predict=_spoils_observation), "changed the observation"),
    ],
)
def test_what_is_wrong_with_predict(agent_class: Any, message: str) -> None:
    with pytest.raises((Broken, UsageError), match=message):
        interface.check_predict(trained(agent_class))


def _telling(change: Callable[[Any], Any]) -> type[Any]:
    return variant(logprobs=lambda self, observation: change(A2C.logprobs(self, observation)))


@pytest.mark.parametrize(
    ("agent_class", "message"),
    [
        (
            _telling(lambda logprobs: logprobs[:, :-1]),
            r"gave shape \(479, 6\) for 479 observations, expected \(479, 7\)",
        ),
        (_telling(lambda logprobs: logprobs + 0.1), "probabilities sum to 1.105, expected 1; apply log_softmax"),
        (_telling(lambda logprobs: logprobs * torch.nan), "gave NaN"),
        (
            _telling(lambda logprobs: torch.log_softmax(logprobs / 2, dim=1)),
            "language_model gives a token another probability than logprobs",
        ),
    ],
)
def test_what_is_wrong_with_logprobs(agent_class: Any, message: str) -> None:
    with pytest.raises(Broken, match=message):
        interface.check_logprobs(trained(agent_class))


def test_a_logprob_that_is_reported_wrongly_is_seen() -> None:
    agent_class = _predicting(lambda answer: (answer[0] | {"logprob": answer[0]["logprob"] - 0.5}, None))
    trial = trained(agent_class)
    interface.check_predict(trial)
    with pytest.raises(Broken, match="report what logprobs says of the token that was drawn"):
        interface.check_logprobs(trial)


def telling(agent_class: Any) -> Trial:
    trial = trained(agent_class)
    interface.check_logprobs(trial)
    return trial


def test_a_seed_that_is_not_used_is_seen() -> None:
    def init(self: A2C, env: Any, config: Any, seed: int, data: None = None) -> None:
        A2C.__init__(self, env, config, 0)

    with pytest.raises(Broken, match="different seeds learned the same policy"):
        learning.check_determinism(telling(variant(__init__=init)))


def test_what_depends_on_the_global_state_without_moving_it_is_seen() -> None:
    def init(self: A2C, env: Any, config: Any, seed: int, data: None = None) -> None:
        A2C.__init__(self, env, config, seed)
        with torch.random.fork_rng(), torch.no_grad():
            next(self.policy.trunk.parameters()).mul_(1 + torch.rand(()) / 10)

    with pytest.raises(Broken, match="depends on the global random state"):
        learning.check_global_random_state(telling(variant(__init__=init)))


def test_a_load_that_forgets_is_seen() -> None:
    def load(cls: Any, path: Path, env: Any) -> Any:
        return cls(env, SMALL, 0)

    with pytest.raises(Broken, match=r"num_timesteps was \d+ when the agent was saved and 0 when it was loaded"):
        learning.check_save_and_load(telling(variant(load=classmethod(load))))


def test_false_gold_values_are_everywhere_and_false_rewards_nowhere() -> None:
    trial = trial_of(A2C)
    truth, poison = trial.env(), trial.env(poisoned=True)
    honest = truth.reference.sample(truth.sample_prompts(8), max_tokens=5, generator=torch.Generator().manual_seed(0))
    real, false = (env.score(honest.responses, honest.logprobs) for env in (truth, poison))
    assert torch.equal(real.token_rewards, false.token_rewards)
    assert real.gold is not None
    assert false.gold is not None
    assert not any(torch.isclose(one, other).all() for one, other in zip(real.gold, false.gold, strict=True))
    infos = []
    for env in (truth, poison):
        env.reset(seed=0)
        info: dict[str, Any] = {}
        while not info:
            *_, rewards, _, _, info = env.step({"token": np.array([2]), "logprob": np.array([-1.0])})
        infos.append((rewards.tolist(), info["gold"].tolist(), info["utility"].tolist()))
    assert infos[0][0] == infos[1][0]
    assert infos[0][1] != infos[1][1]
    assert infos[0][2] != infos[1][2]


def test_the_objective_by_observations_is_the_enumerated_one() -> None:
    trial = trial_of(A2C)
    agent = trial.new()
    agent.learn(500)
    env, worth = agent.env, trial.worth
    expected = exact_objective(env.task, agent.language_model, worth.reference, env.reward_function, env.task.beta)
    found = worth.objective(worth.logprobs(agent))
    assert [float(part) for part in found] == pytest.approx([float(part) for part in expected], abs=1e-5)
    assert worth.start.objective < found.objective < worth.best.objective
    drawn = worth.reward(agent)
    assert drawn == pytest.approx(float(expected.reward), abs=0.15), "2048 draws: six standard errors"


def test_an_error_of_the_agents_own_is_told_with_its_place() -> None:
    def learn(self: A2C, total: int, callback: Any = None) -> None:
        raise KeyError("oops")

    results = {result.name: result for result in check_agent(variant(learn=learn), config=SMALL, tokens=TOKENS)}
    assert results["learn"].failed
    assert f"KeyError: 'oops' ({__file__}, line " in results["learn"].message
    assert results["constructor"].outcome == "passed"
