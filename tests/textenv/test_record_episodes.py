"""Recorded episodes, read back, are those that were stepped."""

import gymnasium as gym
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import textenv
from textenv import models
from textenv.errors import UsageError
from textenv.record_episodes import SCHEMA
from textenv.rewards import PythonReward
from textenv.tasks.exact import Exact
from textenv.token_texts import decode

KINDS = [(kl, reward) for kl in ("reference", "full") for reward in ("token", "episode")]


def rows(folder):
    return pq.read_table(folder, schema=SCHEMA).to_pylist()


def act(env, rng):
    """A random token, often the end; with the log-probability of a policy that takes any alike."""
    token = int(rng.choice([env.unwrapped.eos_id, *range(2, 7)]))
    logprob = np.float32(-np.log(6))
    return {"token": token, "logprob": logprob} if env.unwrapped.kl == "full" else token


def stepped(env, episodes, seed):
    """Steps through episodes and says by hand what each row should be; only the first is seeded."""
    rng = np.random.default_rng(seed)
    task = env.unwrapped.task
    expected = []
    for number in range(episodes):
        observation, info = env.reset(seed=seed if number == 0 else None)
        prompt = observation["input_ids"][observation["attention_mask"] == 1].tolist()
        tokens, rewards, done = [], [], False
        while not done:
            action = act(env, rng)
            tokens.append(action["token"] if isinstance(action, dict) else action)
            _, reward, terminated, truncated, info = env.step(action)
            rewards.append(reward)
            done = terminated or truncated
        expected.append(
            {
                "episode": number, "environment": 0, "seed": seed,
                "prompt": task.prompt_text(prompt), "response": decode(task.tokenizer, tokens),
                "prompt_ids": prompt, "response_ids": tokens,
                "token_rewards": list(info.get("token_rewards", rewards))[: len(tokens)],
                "score": info.get("score"), "gold": info.get("gold"), "utility": info.get("utility"),
                "end": info.get("end", "truncated"),
            }
        )  # fmt: skip
    return expected


@pytest.mark.parametrize(("kl", "reward"), KINDS)
def test_a_single_environments_episodes_are_read_back(tmp_path, kl, reward):
    env = textenv.RecordEpisodes(gym.make("textenv/Exact-v0", kl=kl, reward=reward), tmp_path / "log", flush_every=4)
    expected = stepped(env, 10, seed=3)
    assert rows(tmp_path / "log") == expected[:8]  # two parts of four
    env.close()
    assert rows(tmp_path / "log") == expected
    assert {row["end"] for row in expected} == {"eos", "length"}
    frame = pd.read_parquet(tmp_path / "log")
    assert frame["gold"].tolist() == [row["gold"] for row in expected]
    assert len(list((tmp_path / "log").iterdir())) == 3


def test_both_granularities_are_recorded_alike(tmp_path):
    recorded = []
    for reward in ("token", "episode"):
        with textenv.RecordEpisodes(gym.make("textenv/Exact-v0", reward=reward), tmp_path / reward) as env:
            stepped(env, 8, seed=1)
        recorded.append(pd.read_parquet(tmp_path / reward))
    for ours, theirs in zip(*(frame["token_rewards"] for frame in recorded), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours, theirs = (frame.drop(columns="token_rewards") for frame in recorded)
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-5)


def test_what_a_time_limit_cuts_has_no_score(tmp_path):
    with textenv.RecordEpisodes(TimeLimit(gym.make("textenv/Exact-v0"), 2), tmp_path) as env:
        expected = stepped(env, 12, seed=0)
    assert rows(tmp_path) == expected
    ends = {row["end"]: row["score"] for row in expected}
    assert ends.keys() == {"eos", "truncated"}
    assert ends["truncated"] is None


def test_an_episode_that_is_given_up_is_not_written(tmp_path):
    env = textenv.RecordEpisodes(gym.make("textenv/Exact-v0"), tmp_path)
    env.reset(seed=0)
    env.step(2)
    env.reset(seed=1)
    env.step(env.unwrapped.eos_id)
    env.close()
    env.close()
    (row,) = rows(tmp_path)
    assert (row["episode"], row["seed"], row["response_ids"], row["end"]) == (0, 1, [1], "eos")


def test_an_interrupt_leaves_what_was_flushed(tmp_path):
    """A part is written with every two episodes; `flush` and the end of a with block write the rest."""
    env = textenv.RecordEpisodes(gym.make("textenv/Exact-v0"), tmp_path / "lost", flush_every=2)
    expected = stepped(env, 5, seed=0)
    assert rows(tmp_path / "lost") == expected[:4]
    env.flush()
    assert rows(tmp_path / "lost") == expected
    env = textenv.RecordEpisodes(gym.make("textenv/Exact-v0"), tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        stop_after(env, 3)
    assert len(rows(tmp_path / "kept")) == 3


def stop_after(env, episodes):
    with env:
        stepped(env, episodes, seed=0)
        raise KeyboardInterrupt


def test_a_reward_of_ones_own_and_no_truth(tmp_path):
    reward = PythonReward(lambda _, responses: [float(len(each)) for each in responses], Exact().tokenizer)
    env = gym.make(
        "textenv/Text-v0", prompts=["a b"], model="exact", reward_function=reward, beta=0.0, response_length=4
    )
    with textenv.RecordEpisodes(env, tmp_path) as env:
        env.reset()
        for token in (3, 4, 1):
            env.step(token)
    (row,) = rows(tmp_path)
    assert (row["prompt"], row["response"], row["score"], row["seed"]) == ("a b", "b c", 3.0, None)
    assert row["token_rewards"] == [0.0, 0.0, 3.0]
    assert row["gold"] is row["utility"] is None


@pytest.fixture(scope="module")
def exact():
    """Loaded once for many environments."""
    return {"task": Exact(), "reference": models.load("exact")}


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(("kl", "reward"), [("reference", "token"), ("full", "episode")])
def test_vector_environments_are_recorded_as_single_ones(tmp_path, exact, mode, kl, reward):
    """The native one and Gymnasium's, in each autoreset mode, against stepping the same actions singly."""
    settings = {"kl": kl, "reward": reward, **exact}
    native = gym.make_vec(
        "textenv/Exact-v0", num_envs=3, vectorization_mode="vector_entry_point", autoreset_mode=mode, **settings
    )
    sync = SyncVectorEnv([lambda: gym.make("textenv/Exact-v0", **settings)] * 3, autoreset_mode=mode)
    taken = [[], [], []]
    for name, env in (("native", native), ("sync", sync)):
        env = textenv.RecordVectorEpisodes(env, tmp_path / name, flush_every=3)
        env.reset(seed=5)
        rng = np.random.default_rng(0)
        resting = np.zeros(3, dtype=bool)
        for _ in range(14):
            tokens = rng.choice([1, 1, *range(2, 7)], size=3)
            actions = {"token": tokens, "logprob": np.full(3, -1.5, np.float32)} if kl == "full" else tokens
            _, _, terminated, truncated, _ = env.step(actions)
            if name == "native":
                for row in np.flatnonzero(~resting):
                    taken[row].append(int(tokens[row]))
            if mode == AutoresetMode.DISABLED and terminated.any():
                env.reset(options={"reset_mask": terminated | truncated})
            resting = terminated if mode == AutoresetMode.NEXT_STEP else np.zeros(3, dtype=bool)
        env.close()
    ours, theirs = (pd.read_parquet(tmp_path / name) for name in ("native", "sync"))
    for one, other in zip(ours.pop("token_rewards"), theirs.pop("token_rewards"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-5)
    recorded = rows(tmp_path / "native")
    assert [row["episode"] for row in recorded] == list(range(len(recorded)))
    assert len(recorded) > 6
    for index in range(3):
        single = gym.make("textenv/Exact-v0", **settings)
        mine = [row for row in recorded if row["environment"] == index]
        assert {row["seed"] for row in mine} == {5 + index}
        for number, row in enumerate(mine):
            observation, _ = single.reset(seed=5 + index if number == 0 else None)
            assert row["prompt_ids"] == observation["input_ids"][observation["attention_mask"] == 1].tolist()
            for token in row["response_ids"]:
                assert token == taken[index].pop(0)
                _, _, _, _, info = single.step({"token": token, "logprob": np.float32(-1.5)} if kl == "full" else token)
            assert (row["end"], row["score"], row["gold"]) == (
                info["end"], pytest.approx(info["score"], abs=1e-5), pytest.approx(info["gold"], abs=1e-5),
            )  # fmt: skip
            np.testing.assert_allclose(
                row["token_rewards"], single.unwrapped.episodes.token_rewards[0, : len(row["response_ids"])], atol=1e-5
            )


def test_a_vector_environment_is_given_up_and_seeded_in_part(tmp_path):
    env = gym.make_vec(
        "textenv/Exact-v0", num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode=AutoresetMode.DISABLED
    )
    env = textenv.RecordVectorEpisodes(env, tmp_path)
    env.reset(seed=[None, 7])
    env.step(np.array([2, 1]))
    env.reset(seed=[8, 9], options={"reset_mask": np.array([False, True])})
    env.step(np.array([1, 1]))
    env.close()
    assert [(row["environment"], row["seed"], row["response_ids"]) for row in rows(tmp_path)] == [
        (1, 7, [1]), (0, None, [2, 1]), (1, 9, [1]),
    ]  # fmt: skip


def test_what_cannot_be_is_refused(tmp_path):
    env = gym.make("textenv/Exact-v0")
    with pytest.raises(UsageError, match="flush_every is 0; it must be 1 or more"):
        textenv.RecordEpisodes(env, tmp_path, flush_every=0)
    with textenv.RecordEpisodes(env, tmp_path) as recording:
        stepped(recording, 1, seed=0)
    with pytest.raises(UsageError, match="already holds recorded episodes; record into another one"):
        textenv.RecordEpisodes(env, tmp_path)
