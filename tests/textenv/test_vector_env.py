"""The vector environment: the whole batch at once is the same as stepping, memory, and bad input.

That it is the same as single environments is tested in `test_conformance`.
"""

import io
import pickle

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from textenv import models
from textenv.env import TextEnv
from textenv.errors import TextenvError, UsageError
from textenv.language_model import LanguageModel
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


def same(ours, theirs):
    """Equal to the bit, infos included."""
    np.testing.assert_equal(unboxed(ours), unboxed(theirs))


def unboxed(value):
    """Arrays of objects as lists, which numpy's comparison looks into."""
    if isinstance(value, dict):
        return {key: unboxed(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(map(unboxed, value))
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value


@pytest.mark.parametrize("reward", ["token", "episode"])
def test_what_is_kept_grows_with_prompts_and_responses_and_not_with_the_vocabulary(reward):
    """Nothing that a step computes over the vocabulary outlives it."""
    vocabulary, count, length = 1009, 6, 4
    task = Exact()
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=16, pad_token_id=0,
    )  # fmt: skip
    reference = LanguageModel("wide", LlamaForCausalLM(config).eval(), task.tokenizer)
    env = TextVectorEnv(task, num_envs=count, reference=reference, reward=reward, kl="full")
    env.reset(seed=0)
    for _ in range(length):
        env.step({"token": np.full(count, A), "logprob": np.full(count, -1.0)})
    kept = arrays_in(env, reference.model)
    columns = task.prompt_length + task.response_length
    assert any(array.shape == (count, columns) for array in kept)
    # Ids, mask, three records, the bounds of the spaces and, of one layer, 8 keys and 8 values and a view of these.
    assert sum(array.size for array in kept) <= count * columns * (2 + 3 + 8 + 4 * 8) + 200
    assert all(vocabulary not in array.shape for array in kept)


def arrays_in(env, model):
    """All arrays and tensors that an environment holds on to, those of the model left out."""
    found = []

    class Search(pickle.Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, torch.Tensor):
                found.append(thing.numpy())
            elif isinstance(thing, np.ndarray):
                found.append(thing)
            return "model" if thing is model else None

    Search(io.BytesIO()).dump(env)
    return found


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
        with pytest.raises(UsageError, match=r"seed is 1\.5; it must be an integer, a list of 4"):
            make(parts).reset(seed=1.5)

    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            (np.array([A, A, 7, A]), "environment 2, prompt '.+': there is no token 7; the vocabulary has 0 to 6"),
            (np.array([A, A]), r"tokens must be an array of 4 integers; it was an array of shape \(2,\)"),
            (np.ones(4), "tokens must be an array of 4 integers; .* type float64"),
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
        with pytest.raises(UsageError, match=r"environment 3, prompt '.+': the episode has ended and autoreset is dis"):
            env.step(np.full(4, A))

    def test_unknown_autoreset_mode_and_too_few_environments(self, parts):
        with pytest.raises(UsageError, match="autoreset_mode is 'sometimes'"):
            make(parts, autoreset_mode="sometimes")
        with pytest.raises(UsageError, match="num_envs is 0"):
            make(parts, num_envs=0)

    @pytest.mark.parametrize(
        ("logprobs", "message"),
        [
            (torch.zeros(2, 3), r"logprobs have shape \(2, 3\); the responses, \(2, 2\)"),
            (torch.tensor([[-1.0, -1.0], [0.5, 0.0]]), "environment 1, prompt '.+', token 0: the log-probability 0.5"),
            (torch.tensor([[-1.0, torch.nan], [0.0, 0.0]]), "environment 0, prompt '.+', token 1: the log-prob.* nan"),
        ],
    )
    def test_logprobs_that_are_none(self, parts, logprobs, message):
        env = make(parts, kl="full")
        prompts = env.sample_prompts(2)
        responses = Responses.from_lists(prompts, [[A, EOS], [EOS]], pad_id=0)
        with pytest.raises(UsageError, match=message):
            env.score(responses, logprobs)
        # The other kind of KL term does not read them.
        assert make(parts).score(responses, logprobs).score.shape == (2,)

    def test_responses_that_stepping_cannot_give(self, parts):
        env = make(parts)
        prompts = env.sample_prompts(2)
        for rows, message in (
            ([[A, EOS], [A, 7]], "environment 1, prompt '.+': there is no token 7"),
            ([[A] * 6, [A]], "environment 0, prompt '.+': the response has 6 tokens; expected are 1 to 5"),
        ):
            responses = Responses.from_lists(prompts, rows, pad_id=0)
            with pytest.raises(UsageError, match=message):
                env.score(responses, torch.zeros(responses.ids.shape))

    @pytest.mark.parametrize("mode", list(AutoresetMode))
    @pytest.mark.parametrize("reward", ["token", "episode"])
    def test_a_refused_action_changes_nothing(self, parts, mode, reward):
        env, twin = (make(parts, reward=reward, autoreset_mode=mode) for _ in range(2))
        for each in (env, twin):
            each.reset(seed=0)
        for actions in ([A, 3, A, 4], [A, EOS, A, EOS], [A, A, EOS, A])[: 2 if mode == AutoresetMode.DISABLED else 3]:
            for bad in ([A, 3, 7, A], [EOS] * 3, [1.0] * 4):
                with pytest.raises(UsageError):
                    env.step(bad)
            same(env.step(actions), twin.step(actions))

    @pytest.mark.parametrize("mode", list(AutoresetMode))
    @pytest.mark.parametrize("reward", ["token", "episode"])
    def test_a_step_in_which_the_reward_function_failed_can_be_repeated(self, parts, mode, reward):
        """Neither the environments that would have ended nor the others have moved."""
        fails = False

        def length(prompts, responses):
            return [float("nan") if fails and "d" in response else len(response) for response in responses]

        arguments = {
            "reward": reward,
            "autoreset_mode": mode,
            "reward_function": PythonReward(length, Exact().tokenizer),
        }
        env, twin = make(parts, **arguments), make(parts, **arguments)
        for each in (env, twin):
            each.reset(seed=0)
        for actions in ([A, 3, 5, 5], [EOS, A, EOS, A]):
            fails = True
            if EOS in actions:
                for _ in range(2):
                    with pytest.raises(TextenvError, match=r"environment 2, prompt '.+'.* nan"):
                        env.step(np.array(actions))
            fails = False
            result = env.step(np.array(actions))
            same(result, twin.step(np.array(actions)))
        assert result[2].tolist() == [True, False, True, False]
        fails = True
        # Or all begin anew.
        same(env.reset(seed=1), twin.reset(seed=1))
        same(env.step(np.full(4, A)), twin.step(np.full(4, A)))

    @pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
    def test_a_task_that_gives_a_prompt_too_long_is_asked_again(self, parts, mode):
        class Careless(Exact):
            careless = False

            def sample_prompts(self, split, count, rng):
                return [[A, 3, A, 3] if self.careless else [A, 3]] * count

        task = Careless()
        env = TextVectorEnv(task, num_envs=3, autoreset_mode=mode, **parts)
        env.reset(seed=0)
        if mode == AutoresetMode.NEXT_STEP:
            env.step(np.array([A, EOS, A]))
        task.careless = True
        with pytest.raises(
            UsageError, match="environment 1, prompt 'a b a b': the task 'exact' gave a prompt of 4 tokens"
        ):
            env.step(np.array([A, EOS, A]))
        task.careless = False
        observation, _, terminated, *_ = env.step(np.full(3, A))
        assert not terminated.any()
        steps = [3, 0, 3] if mode == AutoresetMode.NEXT_STEP else [2, 0, 2]
        assert observation["attention_mask"][:, 3:].sum(axis=1).tolist() == steps

    def test_a_failing_reward_function_names_the_environment(self, parts):
        def spoil(prompts, responses):
            return [float("inf") if "b" in response else 0.0 for response in responses]

        env = make(parts, reward_function=PythonReward(spoil, Exact().tokenizer))
        env.reset(seed=0)
        env.step(np.array([A, A, 3, A]))
        with pytest.raises(TextenvError, match="environment 2, prompt"):
            env.step(np.full(4, EOS))
