"""What Gymnasium and stable-baselines3 expect of an environment holds, and all ways to step one are the same."""

import copy
import itertools
import pickle

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from transformers import LlamaConfig, LlamaForCausalLM

import textenv  # noqa: F401  # It registers the ids.
from textenv import models
from textenv.env import TextEnv
from textenv.language_model import LanguageModel
from textenv.rewards import PythonReward
from textenv.tasks.exact import Exact
from textenv.tasks.text import TextTask
from textenv.vector_check import check_vector_env
from textenv.vector_env import TextVectorEnv

IDS = sorted(name for name in gym.registry if name.startswith("textenv/"))
KINDS = list(itertools.product(["full", "reference"], ["token", "episode"]))
EOS, PAD = 1, 0


def vowels(prompts, responses):
    """Something that is not the truth and depends on both."""
    return [response.count("a") - 0.5 * prompt.count("e") for prompt, response in zip(prompts, responses, strict=True)]


@pytest.fixture(scope="module")
def tiny():
    """A random model with the tokens of Exact-v0."""
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=7, **size, max_position_embeddings=32, pad_token_id=PAD)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.4, generator=generator)
    return LanguageModel("tiny", model.requires_grad_(False), models.load("exact").tokenizer)


def arguments_of(environment_id, tiny):
    if environment_id != "textenv/Text-v0":
        return {}
    return {"prompts": ["a b", "c", "d e a"], "model": tiny, "reward_function": vowels, "response_length": 4}


@pytest.mark.parametrize("environment_id", IDS)
@pytest.mark.parametrize(("kl", "reward"), KINDS)
def test_gymnasium_finds_nothing_to_warn_of(environment_id, kl, reward, tiny):
    arguments = arguments_of(environment_id, tiny)
    check_env(gym.make(environment_id, **arguments, kl=kl, reward=reward, disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("environment_id", IDS)
@pytest.mark.parametrize("reward", ["token", "episode"])
def test_stable_baselines3_finds_nothing_to_warn_of(environment_id, reward, tiny):
    arguments = arguments_of(environment_id, tiny)
    check_env_of_sb3(gym.make(environment_id, **arguments, reward=reward, disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("environment_id", IDS)
@pytest.mark.parametrize(("kl", "reward"), KINDS)
def test_our_own_check_of_vector_environments_passes(environment_id, kl, reward, tiny):
    arguments = arguments_of(environment_id, tiny) | {"kl": kl, "reward": reward}
    steps = 12 if environment_id in ("textenv/Exact-v0", "textenv/Text-v0") else 4  # The others' models are larger.
    check_vector_env(
        lambda mode: gym.make_vec(environment_id, num_envs=2, autoreset_mode=mode, **arguments),
        lambda: gym.make(environment_id, **arguments),
        steps=steps,
    )


class RandomAgent:
    """Draws tokens from a distribution of its own and says with which log-probability."""

    def __init__(self, seed, kl, vocab_size):
        self.rng = np.random.default_rng(seed)
        self.kl = kl
        self.probabilities = self.rng.dirichlet(np.full(vocab_size, 0.7)) * 0.9 + 0.1 / vocab_size

    def act(self, count):
        tokens = self.rng.choice(len(self.probabilities), size=count, p=self.probabilities)
        if self.kl == "reference":
            return tokens
        return {"token": tokens, "logprob": np.log(self.probabilities[tokens]).astype(np.float32)}


def of_row(actions, row):
    return {name: values[row] for name, values in actions.items()} if isinstance(actions, dict) else actions[row]


tasks = st.one_of(
    st.none(),  # Exact-v0
    st.tuples(
        st.lists(st.text("abcde", min_size=1, max_size=4), min_size=1, max_size=4),
        st.integers(1, 4),
    ),
)


def parts_of(drawn, tiny):
    if drawn is None:
        return {"task": "exact", "reference": models.load("exact")}
    texts, response_length = drawn
    task = TextTask.from_texts([" ".join(text) for text in texts], tiny, response_length=response_length, beta=0.3)
    return {"task": task, "reference": tiny, "reward_function": PythonReward(vowels, tiny.tokenizer)}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("kl", "reward"), KINDS)
@settings(max_examples=3, deadline=None)
@given(drawn=tasks, seed=st.integers(0, 2**31), penalty=st.sampled_from([0.0, 1.0]))
def test_the_same_single_in_sync_in_async_and_native(tiny, kl, reward, mode, drawn, seed, penalty):
    arguments = parts_of(drawn, tiny) | {"kl": kl, "reward": reward, "missing_eos_penalty": penalty}

    def make():
        return TextEnv(**arguments)

    count = 2
    sync = SyncVectorEnv([make] * count, autoreset_mode=mode)
    others = {
        "native": TextVectorEnv(num_envs=count, autoreset_mode=mode, **arguments),
        "async": AsyncVectorEnv([make] * count, autoreset_mode=mode),
    }
    singles = [make() for _ in range(count)]
    agent = RandomAgent(seed, kl, arguments["reference"].vocab_size)
    try:
        expected = sync.reset(seed=seed)
        for name, env in others.items():
            assert_equal(env.reset(seed=seed), expected, name)
        for row, single in enumerate(singles):
            assert_equal(single.reset(seed=seed + row)[0], of_row(expected[0], row), "single")
        over = np.zeros(count, dtype=bool)
        for _ in range(7):
            actions = agent.act(count)
            expected = sync.step(actions)
            ended = expected[2] | expected[3]
            for name, env in others.items():
                assert_equal(env.step(actions), expected, name)
            for row, single in enumerate(singles):
                if over[row] and mode == AutoresetMode.NEXT_STEP:
                    observation, paid, terminated = single.reset()[0], 0.0, False
                else:
                    observation, paid, terminated, *_ = single.step(of_row(actions, row))
                if terminated and mode == AutoresetMode.SAME_STEP:
                    assert_equal(observation, expected[4]["final_obs"][row], "single")
                    observation = single.reset()[0]
                assert_equal(observation, of_row(expected[0], row), "single")
                assert terminated == expected[2][row]
                assert paid == pytest.approx(expected[1][row], rel=1e-5, abs=1e-5)
            over = ended
            if mode == AutoresetMode.DISABLED and ended.any():
                expected = sync.reset(options={"reset_mask": ended.copy()})
                for name, env in others.items():
                    assert_equal(env.reset(options={"reset_mask": ended.copy()}), expected, name)
                for row in np.flatnonzero(ended):
                    assert_equal(singles[row].reset()[0], of_row(expected[0], row), "single")
    finally:
        for env in (sync, *others.values()):
            env.close()


def assert_equal(ours, theirs, where):
    """Ids, masks, ends and words exactly, other numbers to 1e-5."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{where}: {key}")
    elif isinstance(theirs, tuple) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other, where)
    elif isinstance(theirs, np.ndarray) and theirs.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=where)
    else:
        np.testing.assert_array_equal(ours, theirs, err_msg=where)


class TestMakeVec:
    @pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
    def test_every_mode_gives_the_same(self, mode):
        autoreset = {"autoreset_mode": AutoresetMode.SAME_STEP}
        # Gymnasium hands `vector_kwargs` to its own classes only.
        arguments = autoreset if mode == "vector_entry_point" else {"vector_kwargs": autoreset}
        env = gym.make_vec("textenv/Exact-v0", num_envs=3, vectorization_mode=mode, beta=0.2, **arguments)
        assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        assert env.spec.id == "textenv/Exact-v0"
        env.reset(seed=4)
        _, rewards, terminated, _, infos = env.step(np.array([EOS, 2, EOS]))
        assert terminated.tolist() == [True, False, True]
        assert infos["final_info"]["end"].tolist() == ["eos", None, "eos"]
        expected = TextVectorEnv("exact", num_envs=3, beta=0.2)
        expected.reset(seed=4)
        np.testing.assert_allclose(rewards, expected.step(np.array([EOS, 2, EOS]))[1], rtol=1e-5)

    def test_the_native_one_is_the_default(self):
        assert isinstance(gym.make_vec("textenv/Exact-v0", num_envs=2), TextVectorEnv)

    def test_single_wrappers_are_put_around_each(self):
        env = gym.make_vec(
            "textenv/Exact-v0", num_envs=2, vectorization_mode="sync", wrappers=[gym.wrappers.FlattenObservation]
        )
        assert env.reset(seed=0)[0].shape == (2, 8 + 8)

    @pytest.mark.parametrize(("context", "count"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)])
    def test_worker_processes(self, context, count):
        arguments = {"num_envs": count, "kl": "full", "reward": "episode"}
        env = gym.make_vec(
            "textenv/Exact-v0", vectorization_mode="async", vector_kwargs={"context": context}, **arguments
        )
        native = gym.make_vec("textenv/Exact-v0", **arguments)
        try:
            assert_equal(env.reset(seed=1), native.reset(seed=1), context)
            agent = RandomAgent(0, "full", 7)
            for _ in range(4):
                actions = agent.act(count)
                assert_equal(env.step(actions), native.step(actions), context)
        finally:
            env.close()


def test_a_forked_worker_does_not_wait_for_the_threads_of_its_parent():
    reference = models.load("concierge")
    torch.set_num_threads(2)
    torch.ones(500, 500) @ torch.ones(500, 500)
    env = AsyncVectorEnv([lambda: TextEnv("concierge", reference=reference)], context="fork")
    try:
        env.reset(seed=0)
        env.step_async(np.array([7]))
        _, rewards, *_ = env.step_wait(timeout=60)
        assert rewards[0] < 0
    finally:
        env.close(terminate=True)
        torch.set_num_threads(1)


class TestPickle:
    @pytest.mark.parametrize("copied", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy])
    @pytest.mark.parametrize(("kl", "reward"), KINDS)
    def test_a_copy_goes_on_as_the_original(self, copied, kl, reward):
        env = gym.make("textenv/Exact-v0", kl=kl, reward=reward)
        env.reset(seed=0)
        agent = RandomAgent(1, kl, 7)
        actions = [of_row(agent.act(1), 0) for _ in range(12)]
        for token in (2, 3):
            env.step({"token": token, "logprob": -1.0} if kl == "full" else token)
        self.same_from_here(env, copied(env), actions)

    def same_from_here(self, first, second, actions):
        for action in actions:
            ours, theirs = first.step(action), second.step(action)
            assert_equal(ours[:4], theirs[:4], "copy")
            assert_equal(ours[4], theirs[4], "copy")
            if ours[2]:
                assert_equal(first.reset(), second.reset(), "copy")

    @pytest.mark.parametrize("reward", ["token", "episode"])
    def test_a_vector_environment_too(self, reward):
        env = TextVectorEnv("exact", num_envs=3, reward=reward, autoreset_mode="SameStep")
        env.reset(seed=0)
        agent = RandomAgent(2, "reference", 7)
        for _ in range(3):
            env.step(agent.act(3))
        second = pickle.loads(pickle.dumps(env))
        for _ in range(10):
            actions = agent.act(3)
            assert_equal(env.step(actions), second.step(actions), "copy")

    def test_a_model_that_has_told_its_hidden_states(self):
        """For these transformers puts functions into a model that cannot be pickled."""
        env = TextEnv("exact")
        env.reset(seed=0)
        ids = {"input_ids": torch.tensor([[2, 3, 4]]), "output_hidden_states": True}
        before = env.reference.model(**ids).hidden_states
        second = pickle.loads(pickle.dumps(env))
        for model in (env.reference.model, second.reference.model):
            after = model(**ids).hidden_states
            assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))

    def test_workers_take_environments_that_were_pickled_with_their_functions(self):
        task = Exact()
        reward = PythonReward(lambda prompts, responses: [float(len(each)) for each in responses], task.tokenizer)
        env = TextEnv(task, reward_function=reward, reference=models.load("exact"))
        env.reset(seed=3)
        env.step(2)
        pickled = cloudpickle.dumps(env)
        worker = AsyncVectorEnv([lambda: cloudpickle.loads(pickled)])
        try:
            # Without a seed, workers go on with the generator that was pickled.
            assert_equal(of_row(worker.reset()[0], 0), env.reset()[0], "worker")
            assert worker.step(np.array([2]))[1][0] == pytest.approx(env.step(2)[1])
        finally:
            worker.close()
