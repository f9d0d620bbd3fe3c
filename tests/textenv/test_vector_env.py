"""The vector environment: the same as single ones, and the whole batch at once the same as stepping."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import models
from textenv.env import TextEnv
from textenv.errors import TextenvError, UsageError
from textenv.responses import Responses
from textenv.rewards import PythonReward
from textenv.tasks.exact import Exact
from textenv.vector_env import TextVectorEnv

EOS, A = 1, 2
EACH = settings(max_examples=12, deadline=None)


@pytest.fixture(scope="module")
def parts():
    return {"reference": models.load("exact")}


def make(parts, num_envs=4, **arguments):
    return TextVectorEnv("exact", num_envs=num_envs, **parts, **arguments)


def actions_for(kl, tokens, logprobs):
    tokens = np.array(tokens)
    return tokens if kl == "reference" else {"token": tokens, "logprob": np.array(logprobs, dtype=np.float32)}


@EACH
@given(
    kl=st.sampled_from(["full", "reference"]),
    reward=st.sampled_from(["token", "episode"]),
    mode=st.sampled_from(list(AutoresetMode)),
    seed=st.integers(0, 2**31),
    penalty=st.sampled_from([0.0, 1.0]),
    data=st.data(),
)
def test_it_is_single_environments_side_by_side(parts, kl, reward, mode, seed, penalty, data):
    shared = {"kl": kl, "reward": reward, "missing_eos_penalty": penalty, **parts}
    vector = TextVectorEnv("exact", num_envs=3, autoreset_mode=mode, **shared)
    sync = SyncVectorEnv([lambda: TextEnv("exact", **shared)] * 3, autoreset_mode=mode)
    singles = [TextEnv("exact", **shared) for _ in range(3)]
    ours, theirs = vector.reset(seed=seed), sync.reset(seed=seed)
    alone = [env.reset(seed=seed + index)[0] for index, env in enumerate(singles)]
    running = np.ones(3, dtype=bool)
    for _ in range(8):
        for name in ("input_ids", "attention_mask"):
            np.testing.assert_array_equal(ours[0][name], theirs[0][name])
            # Single environments are compared until they end for the first time.
            for index in np.flatnonzero(running):
                np.testing.assert_array_equal(ours[0][name][index], alone[index][name])
        tokens = data.draw(st.lists(st.integers(0, 6), min_size=3, max_size=3))
        logprobs = data.draw(st.lists(st.floats(-20, 0, width=32), min_size=3, max_size=3))
        actions = actions_for(kl, tokens, logprobs)
        ours, theirs = vector.step(actions), sync.step(actions)
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(ours[2], theirs[2])
        np.testing.assert_array_equal(ours[3], theirs[3])
        assert ours[4].keys() == theirs[4].keys()
        for index in np.flatnonzero(running):
            action = tokens[index] if kl == "reference" else {"token": tokens[index], "logprob": logprobs[index]}
            alone[index], paid, ended, _, _ = singles[index].step(action)
            np.testing.assert_allclose(ours[1][index], paid, rtol=1e-5, atol=1e-5)
            assert ours[2][index] == ended
            running[index] = not ended
        if mode == AutoresetMode.DISABLED and ours[2].any():
            ended = ours[2]
            ours = vector.reset(options={"reset_mask": ended.copy()})
            theirs = sync.reset(options={"reset_mask": ended.copy()})


@EACH
@given(
    kl=st.sampled_from(["full", "reference"]),
    reward=st.sampled_from(["token", "episode"]),
    group_size=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 1000),
    penalty=st.sampled_from([0.0, 0.5]),
)
def test_the_whole_batch_at_once_is_the_same_as_stepping(parts, kl, reward, group_size, seed, penalty):
    env = make(parts, kl=kl, reward=reward, missing_eos_penalty=penalty, autoreset_mode=AutoresetMode.DISABLED)
    prompts = env.sample_prompts(4 // group_size)
    generator = torch.Generator().manual_seed(seed)
    sample = env.reference.sample(prompts, max_tokens=5, generator=generator, group_size=group_size)
    logprobs = sample.logprobs - 0.3 * sample.responses.mask  # another policy than the reference
    scores = env.score(sample.responses, logprobs)

    rows = sample.responses.ungrouped()
    stepped = np.zeros(rows.ids.shape)
    # Every row is stepped in an environment of its own, begun with the row's prompt.
    for row in range(4):
        single = TextEnv("exact", kl=kl, reward=reward, missing_eos_penalty=penalty, **parts)
        attempt = 0
        prompt = rows.prompts.to_lists()[row]
        while True:
            observation, _ = single.reset(seed=attempt)
            keep = observation["attention_mask"][:3] == 1
            if observation["input_ids"][:3][keep].tolist() == prompt:
                break
            attempt += 1
        for step in range(int(rows.lengths[row])):
            token, logprob = int(rows.ids[row, step]), float(logprobs[row, step])
            action = token if kl == "reference" else {"token": token, "logprob": logprob}
            _, stepped[row, step], _, _, info = single.step(action)
        if reward == "episode":
            stepped[row] = info["token_rewards"][: stepped.shape[1]]
        assert info["score"] == pytest.approx(float(scores.score[row]), abs=1e-5)
        assert info["gold"] == pytest.approx(float(scores.gold.score[row]), abs=1e-6)
    np.testing.assert_allclose(scores.token_rewards.numpy(), stepped, rtol=1e-5, atol=1e-5)
    assert scores.token_rewards.dtype == torch.float32
    assert (scores.token_rewards[~rows.mask] == 0).all()
    assert (scores.reference_logprobs[~rows.mask] == 0).all()


def test_groups_share_a_prompt(parts):
    env = make(parts, num_envs=6)
    observation, _ = env.reset(seed=5, options={"group_size": 3})
    ids = observation["input_ids"]
    assert (ids[:3] == ids[0]).all()
    assert (ids[3:] == ids[3]).all()
    alone, _ = make(parts, num_envs=6).reset(seed=5)
    np.testing.assert_array_equal(ids[[0, 3]], alone["input_ids"][[0, 3]])


def test_a_group_can_be_begun_anew_alone(parts):
    env = make(parts, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0, options={"group_size": 2})
    env.step(np.array([EOS, EOS, A, A]))
    observation, _ = env.reset(options={"group_size": 2, "reset_mask": np.array([True, True, False, False])})
    assert observation["attention_mask"][:, 3:].sum(axis=1).tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(observation["input_ids"][0], observation["input_ids"][1])


def test_sample_prompts_follow_the_generator_of_the_environment(parts):
    env = make(parts)
    env.reset(seed=11)
    state = env.np_random.bit_generator.state
    first = env.sample_prompts(20)
    assert first.ids.shape == (20, 3)
    env.np_random.bit_generator.state = state
    again = env.sample_prompts(20)
    env.reset(seed=11)
    seeded = env.sample_prompts(20)
    for other in (again, seeded):
        assert torch.equal(first.ids, other.ids)
        assert torch.equal(first.mask, other.mask)


def test_stepping_and_drawing_prompts_do_not_disturb_each_other(parts):
    quiet, busy = make(parts), make(parts)
    for env in (quiet, busy):
        env.reset(seed=2)
    busy.sample_prompts(7)
    for _ in range(3):
        actions = np.full(4, EOS)
        np.testing.assert_array_equal(quiet.step(actions)[0]["input_ids"], busy.step(actions)[0]["input_ids"])


def test_same_step_gives_the_end_and_the_next_beginning(parts):
    env = make(parts, num_envs=2, autoreset_mode="SameStep")
    env.reset(seed=0)
    observation, _, terminated, _, infos = env.step(np.array([EOS, A]))
    assert terminated.tolist() == [True, False]
    assert infos["final_obs"][0]["input_ids"][3] == EOS
    assert infos["final_obs"][1] is None
    assert infos["final_info"]["end"][0] == "eos"
    assert observation["attention_mask"][:, 3:].sum(axis=1).tolist() == [0, 1]


def test_next_step_ignores_the_action_of_an_environment_that_is_begun_anew(parts):
    env = make(parts, num_envs=2, kl="full")
    env.reset(seed=0)
    env.step({"token": np.array([EOS, A]), "logprob": np.array([-1.0, -1.0])})
    _, rewards, terminated, _, infos = env.step({"token": np.array([99, A]), "logprob": np.array([np.nan, -1.0])})
    assert rewards[0] == 0
    assert rewards[1] != 0
    assert not terminated.any()
    assert infos == {}


def test_seeds_can_be_given_one_by_one(parts):
    env = make(parts)
    first, _ = env.reset(seed=[3, 4, 5, 6])
    second, _ = make(parts).reset(seed=3)
    np.testing.assert_array_equal(first["input_ids"], second["input_ids"])


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"groups": 2}, r"unknown reset options \['groups'\]"),
            ({"group_size": 3}, "group_size is 3; it must divide the number of environments, 4"),
            ({"group_size": 0}, "group_size is 0"),
            ({"reset_mask": [True] * 4}, "reset_mask must be a numpy array of 4 booleans"),
            ({"reset_mask": np.ones(3, dtype=bool)}, "reset_mask must be a numpy array of 4 booleans"),
            ({"reset_mask": np.ones(4, dtype=int)}, "reset_mask must be a numpy array of 4 booleans"),
            ({"reset_mask": np.zeros(4, dtype=bool)}, "must be true somewhere"),
            ({"reset_mask": np.array([True, False, True, True]), "group_size": 2}, "alike in all environments"),
        ],
    )
    def test_options(self, parts, options, message):
        with pytest.raises(UsageError, match=message):
            make(parts).reset(options=options)

    def test_seeds(self, parts):
        with pytest.raises(UsageError, match="2 seeds were given; 4 environments need one each"):
            make(parts).reset(seed=[1, 2])

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            (np.array([A, A, 7, A]), "environment 2: there is no token 7; the vocabulary has 0 to 6"),
            (np.array([A, A]), "tokens must be 4 integers"),
            (np.ones(4), "tokens must be 4 integers"),
            ({"token": np.ones(4, dtype=int)}, "an action is a token alone"),
        ],
    )
    def test_actions(self, parts, actions, message):
        env = make(parts)
        env.reset(seed=0)
        with pytest.raises(UsageError, match=message):
            env.step(actions)

    def test_step_before_reset(self, parts):
        env = make(parts)
        with pytest.raises(UsageError, match="before reset of environment 0"):
            env.step(np.full(4, A))
        env.reset(options={"reset_mask": np.array([True, True, False, False])})
        with pytest.raises(UsageError, match="before reset of environment 2"):
            env.step(np.full(4, A))

    def test_step_after_an_end_without_autoreset(self, parts):
        env = make(parts, autoreset_mode=AutoresetMode.DISABLED)
        env.reset(seed=0)
        env.step(np.array([A, A, A, EOS]))
        with pytest.raises(UsageError, match="episode of environment 3 has ended and autoreset is disabled"):
            env.step(np.full(4, A))

    def test_unknown_autoreset_mode_and_too_few_environments(self, parts):
        with pytest.raises(UsageError, match="autoreset_mode is 'sometimes'"):
            make(parts, autoreset_mode="sometimes")
        with pytest.raises(UsageError, match="num_envs is 0"):
            make(parts, num_envs=0)

    def test_logprobs_of_another_shape(self, parts):
        env = make(parts)
        prompts = env.sample_prompts(2)
        responses = Responses.from_lists(prompts, [[A, EOS], [EOS]], pad_id=0)
        with pytest.raises(UsageError, match=r"logprobs have shape \(2, 3\)"):
            env.score(responses, torch.zeros(2, 3))

    def test_a_failing_reward_function_names_the_environment(self, parts):
        def spoil(prompts, responses):
            return [float("inf") if "b" in response else 0.0 for response in responses]

        env = make(parts, reward_function=PythonReward(spoil, Exact().tokenizer))
        env.reset(seed=0)
        env.step(np.array([A, A, 3, A]))
        with pytest.raises(TextenvError, match="environment 2, prompt"):
            env.step(np.full(4, EOS))
