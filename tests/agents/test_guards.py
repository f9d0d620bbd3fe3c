"""Runs that go bad: what stops them, what they leave, and that the checkpoint they name is a good one."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import load_agent, training
from agents.a2c import A2C, A2CConfig
from agents.best_of_n import BestOfNConfig
from agents.dpo import DPOConfig
from agents.guards import LEAST_ENTROPY, Guard
from agents.listener import Stopped
from agents.rlhf import Loop, RLHFConfig, prepare
from agents.rloo import RLOO, RLOOConfig
from agents.run_folder import FAILURE, RunFolder
from textenv.enumeration import exact_objective
from textenv.errors import TextenvError
from textenv.rewards import GoldReward
from textenv.vector_env import TextVectorEnv

GOLD = RLHFConfig(task="exact", agent="a2c", reward="gold", tokens=1500, test_prompts=4, test_samples=8)
A2C_RUN = replace(GOLD, algorithm=A2CConfig(n_prompts=16, group_size=4))
LIMIT = 2.9
RUNAWAY = replace(
    GOLD,
    agent="rloo",
    max_kl=LIMIT,
    algorithm=RLOOConfig(group_size=8, learning_rate=0.008, lr_schedule="constant", precision="float32"),
)
"""Its rollouts have KLs of 0, 2.0 and 3.4 nats; by enumeration the policies after them have 2.5 and 3.8."""


@pytest.fixture(autouse=True)
def no_sparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no seconds between checkpoints each row gets one, however long they take to write."""
    monkeypatch.setattr(training, "MOST_CHECKPOINTING", math.inf)


class Quiet:
    """Stops a run after so many iterations."""

    def __init__(self, iterations: int | None = None) -> None:
        self.left = iterations

    def progress(self, stage: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        if stage == "reinforce" and numbers and self.left is not None:
            self.left -= 1

    def end(self, stage: str, seconds: float) -> None:
        pass

    def stopping(self) -> bool:
        return self.left is not None and self.left <= 0


def new_folder(path: Path, config: RLHFConfig) -> RunFolder:
    return RunFolder.create(path, prepare(config).config.to_json(), threads=1, created="2026-01-01")


def failure(folder: RunFolder, config: RLHFConfig, checkpoint_seconds: float) -> tuple[str, Path]:
    """What a run that fails says, and the checkpoint that it names, which must be the newest."""
    with pytest.raises(TextenvError) as caught:
        Loop(prepare(config), folder, Quiet(), checkpoint_seconds).run()
    assert not isinstance(caught.value, Stopped)
    named = re.search(r"is (\S*/step-\d+); textenv play", str(caught.value))
    assert named is not None, str(caught.value)
    checkpoint = Path(named[1])
    assert checkpoint == folder.checkpoints()[-1]
    return str(caught.value), checkpoint


def steps_of(folder: RunFolder) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in folder.checkpoints()]


def timesteps(rows: list[dict[str, Any]]) -> list[int]:
    return [row["timesteps"] for row in rows]


def exact_kl(checkpoint: Path, config: RLHFConfig) -> float:
    """The enumerated KL of a checkpoint's policy, in nats an episode."""
    setting = prepare(config)
    env = TextVectorEnv(setting.task, reference=setting.reference, kl="full")
    policy = load_agent(config.agent).load(checkpoint, env).language_model
    objective = exact_objective(setting.task, policy, setting.reference, GoldReward(setting.task), setting.task.beta)
    return float(objective.kl)


def test_the_checkpoint_that_made_a_bad_rollout_is_not_the_one_that_is_named(tmp_path: Path) -> None:
    with new_folder(tmp_path / "cut", RUNAWAY) as folder:
        with pytest.raises(Stopped):
            Loop(prepare(RUNAWAY), folder, Quiet(2), 0).run()
        first, second = timesteps(folder.metrics())
        assert steps_of(folder) == [first, second]
        assert exact_kl(folder.checkpoints()[0], RUNAWAY) < LIMIT < exact_kl(folder.checkpoints()[1], RUNAWAY)
    with new_folder(tmp_path / "run", RUNAWAY) as folder:
        message, named = failure(folder, RUNAWAY, checkpoint_seconds=0)
        assert re.search(r"the KL to the reference is \d\.\d nats an episode, and --max-kl allows 2\.9;", message)
        assert exact_kl(named, RUNAWAY) < LIMIT
        assert steps_of(folder) == timesteps(folder.metrics()) == [first]
        lost = folder.read_rows(FAILURE)
        assert str(folder.path / FAILURE) in message
        assert timesteps(lost)[0] == second
        assert [row["kl"] > LIMIT for row in lost] == [False, True], (
            "the rows since, and at last the one that it failed at"
        )


def test_a_later_row_vouches_for_the_newest_checkpoint(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run", RUNAWAY) as folder:
        assert failure(folder, RUNAWAY, checkpoint_seconds=1e9)[1].name == "step-000000000"
        assert [row["kl"] > LIMIT for row in folder.read_rows(FAILURE)] == [False, False, True]
        assert folder.metrics() == []


@pytest.mark.parametrize("checkpoint_seconds", [0, 1e9])
def test_a_resumed_run_doubts_the_checkpoint_that_it_came_from(tmp_path: Path, checkpoint_seconds: float) -> None:
    with new_folder(tmp_path / "run", RUNAWAY) as folder:
        with pytest.raises(Stopped):
            Loop(prepare(RUNAWAY), folder, Quiet(2), checkpoint_seconds).run()
        before, _ = steps_of(folder)
        passed = timesteps(folder.metrics())
    for _ in range(2):  # What it fails at it fails at again.
        with RunFolder.open(tmp_path / "run") as folder:
            failure(folder, RUNAWAY, checkpoint_seconds)
            assert steps_of(folder) == [before]
            lost = folder.read_rows(FAILURE)
            assert timesteps([*folder.metrics(), *lost])[:-1] == passed
            assert lost[-1]["kl"] > LIMIT


@pytest.mark.parametrize(
    ("learning_rate", "message"),
    [
        (0.05, r"the KL guard stopped training: the KL to the reference is 1\d\.\d nats an episode, and beyond 9\.7"),
        (0.3, r"the entropy guard stopped training: the policy's entropy is \S+ nats a token"),
    ],
)
def test_a_policy_that_collapses_stops_the_run(tmp_path: Path, learning_rate: float, message: str) -> None:
    config = replace(GOLD, agent="rloo", algorithm=RLOOConfig(n_prompts=8, learning_rate=learning_rate))
    with new_folder(tmp_path / "run", config) as folder:
        said, named = failure(folder, config, checkpoint_seconds=0)
        assert re.search(message, said)
        assert exact_kl(named, config) < 0.01, "only the reference was good"
        assert folder.read_rows(FAILURE)[-1]["entropy"] < 1


def test_without_a_kl_to_pay_a_policy_may_be_certain() -> None:
    free = TextVectorEnv("exact", kl="full", beta=0.0)
    Guard(free, None, 0).check({"entropy": 0.0, "kl": 1000.0})
    with pytest.raises(TextenvError, match=r"is 4\.0 nats an episode, and --max-kl allows 3;"):
        Guard(free, 3.0, 0).check({"entropy": 0.0, "kl": 4.0})
    paid = TextVectorEnv("exact", kl="full")
    Guard(paid, 10.0, 0).check({"entropy": LEAST_ENTROPY, "kl": 9.9})  # More than T·log V, which would be 9.7.
    with pytest.raises(TextenvError, match="the entropy guard"):
        Guard(paid, 10.0, 0).check({"entropy": LEAST_ENTROPY / 2})


class ToldByLogprobs:
    """Another's policy without its language model."""

    def __init__(self, agent: RLOO) -> None:
        self.logprobs = agent.logprobs


def test_a_policy_that_tells_nothing_of_itself_is_sampled(tmp_path: Path) -> None:
    env = TextVectorEnv("exact", kl="full")
    agent = RLOO(env, RLOOConfig(learning_rate=0.05), 0)
    guard = Guard(env, 5.0, 0)
    assert guard.finds_sound(agent)
    assert guard.finds_sound(ToldByLogprobs(agent))
    agent.learn(1)
    before = {name: tensor.clone() for name, tensor in agent.tensors().items()}
    for policy in (agent, ToldByLogprobs(agent)):
        assert not guard.finds_sound(policy)
        with pytest.raises(TextenvError, match=r"the KL to the reference is 9\.\d nats"):  # By enumeration 9.2.
            guard.check_policy(policy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.tensors().items()), "nothing was drawn"


def test_an_offline_agent_is_judged_before_its_checkpoints(tmp_path: Path) -> None:
    # Its rollouts would have shown it long before, but it makes none.
    config = replace(
        GOLD, agent="dpo", reward="learned", labels=90, max_kl=6.0, algorithm=DPOConfig(learning_rate=1.0), tokens=3000
    )
    with new_folder(tmp_path / "run", config) as folder:
        message, named = failure(folder, config, checkpoint_seconds=1e9)
        assert re.search(r"the KL to the reference is \d+\.\d nats an episode, and --max-kl allows 6", message)
        assert named.name == "step-000000000"
        assert timesteps(folder.read_rows(FAILURE))[-1] >= 3000


def spoil(folder: Path, monkeypatch: pytest.MonkeyPatch, calls: str) -> str:
    """A reward that is NaN at some of its calls, counted from 1."""
    monkeypatch.delitem(sys.modules, "spoiling", raising=False)
    (folder / "spoiling.py").write_text(
        "calls = []\n"
        "def reward(prompts, responses):\n"
        "    calls.append(1)\n"
        f"    return [float('nan') if len(calls) {calls} else float(len(r)) for r in responses]\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    return "spoiling:reward"


@pytest.mark.parametrize("checkpoint_seconds", [0, 1e9])
def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_seconds: float
) -> None:
    config = replace(A2C_RUN, reward=spoil(tmp_path, monkeypatch, ">= 4"))
    with new_folder(tmp_path / "run", config) as folder:
        message, named = failure(folder, config, checkpoint_seconds)
        assert re.search(r"nan.*Start a new run", message)
        assert exact_kl(named, config) < 1
        rows = folder.metrics()
        assert len(rows) == 3, "nothing that was earned is lost"
        assert timesteps(rows)[-1] == steps_of(folder)[-1]
        assert not (folder.path / FAILURE).exists()


@pytest.mark.parametrize(("checkpoint_seconds", "rows_kept"), [(0, 2), (1e9, 0)])
def test_an_agent_of_which_nothing_is_known_is_kept_where_a_later_row_vouches_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_seconds: float, rows_kept: int
) -> None:
    config = replace(GOLD, agent="best-of-n", algorithm=BestOfNConfig(n=2), tokens=600)
    # A reward that fails is asked again, row by row, for the first row that fails.
    config = replace(config, reward=spoil(tmp_path, monkeypatch, "in (4, 5)"))
    with new_folder(tmp_path / "run", config) as folder:
        message, named = failure(folder, config, checkpoint_seconds)
        assert re.search(r"nan.*last good checkpoint", message)
        assert len(folder.metrics()) == rows_kept
        lost = timesteps(folder.read_rows(FAILURE))
        assert len(lost) == 3 - rows_kept
        assert timesteps(folder.metrics())[-1:] == steps_of(folder)[-1:] or named.name == "step-000000000"
    with RunFolder.open(tmp_path / "run") as folder:  # Now the reward is finite.
        Loop(prepare(config), folder, Quiet()).run()
        assert set(lost) < set(timesteps(folder.metrics()))
        assert not (folder.path / FAILURE).exists()


def test_where_no_checkpoint_is_good_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(GOLD, agent="best-of-n", algorithm=BestOfNConfig(n=2), tokens=600)
    config = replace(config, reward=spoil(tmp_path, monkeypatch, ">= 1"))
    with new_folder(tmp_path / "run", config) as folder:
        message, _ = failure(folder, config, checkpoint_seconds=0)
        assert "No checkpoint is known to be good; the one there is, from the start, is" in message


@pytest.mark.parametrize("checkpoint_seconds", [0, 1e9])
def test_weights_that_overflow_are_no_good_checkpoint(tmp_path: Path, checkpoint_seconds: float) -> None:
    config = replace(A2C_RUN, algorithm=A2CConfig(learning_rate=1e30))
    with new_folder(tmp_path / "run", config) as folder:
        message, named = failure(folder, config, checkpoint_seconds)
        assert "log-probability became nan" in message
        assert named.name == "step-000000000"


def test_an_agent_that_went_bad_itself_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(A2C, "learn", lambda self, total, callback: _spoil(self, callback))
    with new_folder(tmp_path / "run", A2C_RUN) as folder:
        message, named = failure(folder, A2C_RUN, checkpoint_seconds=1e9)
        assert "the loss became nan" in message
        assert named.name == "step-000000000"


def _spoil(agent: Any, callback: Any) -> None:
    for loss in (1.0, float("nan")):
        agent.num_timesteps += 10
        callback(agent, {"loss": loss})
