"""The single environment: checkers, rewards worked out from the model, ends and bad input."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from textenv import models
from textenv.env import TextEnv
from textenv.errors import TextenvError, UsageError
from textenv.responses import Prompts, Responses
from textenv.rewards import PythonReward
from textenv.tasks.exact import Exact, utility_deviation

EOS, A, B = 1, 2, 3


class Rule:
    """Two points for each response, whatever it says."""

    name = "rule"

    def __call__(self, responses):
        return torch.full((len(responses),), 2.0)


@pytest.fixture(scope="module")
def reference():
    return models.load("exact")


def make(**arguments):
    return TextEnv("exact", **arguments)


def reference_logprobs(reference, prompt, response):
    prompts = Prompts.from_lists([prompt], pad_id=0)
    return reference.logprobs(Responses.from_lists(prompts, [response], pad_id=0))[0].tolist()


def prompt_of(observation):
    keep = observation["attention_mask"][:3] == 1
    return observation["input_ids"][:3][keep].tolist()


@pytest.mark.parametrize("kl", ["reference", "full"])
@pytest.mark.parametrize("reward", ["token", "episode"])
def test_gymnasium_finds_nothing_to_warn_of(kl, reward):
    check_env(gym.make("textenv/Exact-v0", kl=kl, reward=reward, disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("reward", ["token", "episode"])
def test_stable_baselines3_finds_nothing_to_warn_of(reward):
    check_env_of_sb3(make(reward=reward))


def test_observations_show_the_prompt_and_the_tokens_so_far():
    env = make()
    observation, info = env.reset(seed=0)
    prompt = prompt_of(observation)
    assert info == {}
    assert prompt in env.task.prompts
    assert observation["input_ids"].dtype == np.int64
    assert observation["attention_mask"].dtype == np.int8
    assert observation["attention_mask"].tolist() == [0] * (3 - len(prompt)) + [1] * len(prompt) + [0] * 5
    for token in (A, B):
        observation, _, terminated, truncated, _ = env.step(token)
        assert (terminated, truncated) == (False, False)
    assert observation["input_ids"][3:].tolist() == [A, B, 0, 0, 0]
    assert observation["attention_mask"][3:].tolist() == [1, 1, 0, 0, 0]


def test_the_reference_term_is_paid_at_each_step_and_the_score_at_the_end(reference):
    env = make(beta=0.5, reward_function=Rule())
    prompt = prompt_of(env.reset(seed=1)[0])
    rewards = [env.step(token)[1] for token in (A, B, EOS)]
    first, second, third = reference_logprobs(reference, prompt, [A, B, EOS])
    np.testing.assert_allclose(rewards, [0.5 * first, 0.5 * second, 0.5 * third + 2.0], atol=1e-5)


def test_the_full_term_is_the_log_ratio(reference):
    env = make(beta=0.5, kl="full", reward_function=Rule())
    prompt = prompt_of(env.reset(seed=1)[0])
    rewards = [env.step({"token": token, "logprob": -1.5})[1] for token in (A, B, EOS)]
    first, second, third = reference_logprobs(reference, prompt, [A, B, EOS])
    expected = [-0.5 * (-1.5 - first), -0.5 * (-1.5 - second), -0.5 * (-1.5 - third) + 2.0]
    np.testing.assert_allclose(rewards, expected, atol=1e-5)


def test_an_episode_pays_at_the_end_what_its_tokens_would_have_paid():
    each, whole = make(), make(reward="episode")
    each.reset(seed=3)
    whole.reset(seed=3)
    rewards = [each.step(token)[1] for token in (A, B, EOS)]
    paid = [whole.step(token) for token in (A, B, EOS)]
    assert [step[1] for step in paid[:2]] == [0.0, 0.0]
    np.testing.assert_allclose(paid[2][1], sum(rewards), atol=1e-5)
    info = paid[2][4]
    np.testing.assert_allclose(info["token_rewards"], [*rewards, 0.0, 0.0], atol=1e-5)


def test_the_end_says_how_it_came_and_what_the_truth_is():
    env = make()
    prompt = prompt_of(env.reset(seed=0)[0])
    info = env.step(EOS)[4]
    # An empty response: no letter of the wanted ones, nothing to begin and end with, but it is ended.
    gold = 0.5 / (1 + len(prompt)) + 0.2
    assert info["end"] == "eos"
    assert info["gold"] == pytest.approx(gold)
    assert info["utility"] == info["score"] == pytest.approx(gold / utility_deviation())
    env.reset()
    for step in range(5):
        *_, terminated, truncated, info = env.step(A)
        assert (terminated, truncated) == (step == 4, False)
    assert info["end"] == "length"


def test_eos_as_the_last_token_of_the_budget_is_an_end_by_eos():
    env = make()
    env.reset(seed=0)
    infos = [env.step(token)[4] for token in (A, A, A, A, EOS)]
    assert infos[-1]["end"] == "eos"
    assert infos[:4] == [{}] * 4


def test_the_missing_eos_penalty_is_subtracted_only_where_no_eos_came():
    for tokens, score in (([EOS], 2.0), ([A] * 5, 0.5), ([A] * 4 + [EOS], 2.0)):
        env = make(reward_function=Rule(), missing_eos_penalty=1.5)
        env.reset(seed=0)
        *_, info = [env.step(token) for token in tokens][-1]
        assert info["score"] == score


def test_gold_is_there_whatever_the_reward_is():
    env = make(reward_function=Rule())
    env.reset(seed=0)
    info = env.step(EOS)[4]
    assert info["score"] == 2.0
    assert 0 < info["gold"] < 1


def test_beta_can_be_set_between_episodes():
    env = make(reward_function=Rule(), beta=0.0)
    env.reset(seed=0)
    assert env.step(EOS)[1] == 2.0
    env.beta = 1.0
    env.reset(seed=0)
    assert env.step(EOS)[1] < 2.0


def test_returned_arrays_are_never_reused():
    env = make()
    first, _ = env.reset(seed=0)
    copies = {name: array.copy() for name, array in first.items()}
    env.step(A)
    for name, array in first.items():
        np.testing.assert_array_equal(array, copies[name])
        array[:] = 0
    assert env.step(B)[0]["input_ids"][3:5].tolist() == [A, B]


def test_ansi_rendering_shows_prompt_tokens_and_end():
    env = make(render_mode="ansi")
    assert env.render() == ""
    prompt = env.task.tokenizer.decode(prompt_of(env.reset(seed=0)[0]))
    env.step(B)
    env.step(EOS)
    text = env.render()
    assert prompt in text
    assert text.index("mb\x1b") < text.index("<eos>") < text.index("[eos]")


def test_human_rendering_prints_every_step(capsys):
    env = make(render_mode="human")
    env.reset(seed=0)
    env.step(A)
    assert env.render() is None
    assert len(capsys.readouterr().out.splitlines()) == 3


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"kl": "both"}, "kl is 'both'; it must be 'full' or 'reference'"),
            ({"reward": "step"}, "reward is 'step'"),
            ({"split": "dev"}, "split is 'dev'; it must be one of train, validation, test, heldout"),
            ({"beta": -1.0}, "beta is -1.0"),
            ({"beta": float("nan")}, "beta is nan"),
            ({"missing_eos_penalty": -1.0}, "missing_eos_penalty is -1.0"),
            ({"render_mode": "rgb_array"}, "render_mode is 'rgb_array'"),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(UsageError, match=message):
            make(**arguments)

    def test_unknown_task(self):
        with pytest.raises(UsageError, match="unknown task 'exakt'"):
            TextEnv("exakt")

    def test_step_before_reset_and_after_the_end(self):
        env = make()
        with pytest.raises(UsageError, match="before reset"):
            env.step(A)
        env.reset(seed=0)
        env.step(EOS)
        with pytest.raises(UsageError, match="after the end of the episode"):
            env.step(A)

    def test_unknown_option(self):
        with pytest.raises(UsageError, match=r"unknown reset options \['group_size'\]"):
            make().reset(options={"group_size": 2})

    @pytest.mark.parametrize("action", [7, -1, 1.0, "a", [1, 2], None, {"token": 1, "logprob": -1.0}])
    def test_actions_that_are_no_tokens(self, action):
        env = make()
        env.reset(seed=0)
        with pytest.raises(UsageError):
            env.step(action)

    @pytest.mark.parametrize("logprob", [0.1, float("nan"), -float("inf"), -1e5, "x", [-1.0, -1.0]])
    def test_numbers_that_are_no_logprobs(self, logprob):
        env = make(kl="full")
        env.reset(seed=0)
        with pytest.raises(UsageError, match="log-probabilit"):
            env.step({"token": A, "logprob": logprob})

    @pytest.mark.parametrize("action", [1, {"token": 1}, {"token": 1, "logprob": -1.0, "value": 0.0}])
    def test_actions_of_another_form(self, action):
        env = make(kl="full")
        env.reset(seed=0)
        with pytest.raises(UsageError, match='dictionary of "token" and "logprob"'):
            env.step(action)

    def test_a_refused_action_changes_nothing(self):
        env = make()
        before, _ = env.reset(seed=0)
        with pytest.raises(UsageError):
            env.step(7)
        after = env.step(A)[0]
        assert after["attention_mask"].sum() == before["attention_mask"].sum() + 1

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda prompts, responses: [float("nan")] * len(prompts), "nan"),
            (lambda prompts, responses: [1.0, 2.0], "shape"),
            (lambda prompts, responses: 1 / 0, "division by zero"),
        ],
    )
    def test_a_failing_reward_function_names_environment_and_prompt(self, function, message):
        task = Exact()
        env = TextEnv(task, reward_function=PythonReward(function, task.tokenizer))
        prompt = task.tokenizer.decode(prompt_of(env.reset(seed=0)[0]))
        with pytest.raises(TextenvError, match=f"environment 0, prompt '{prompt}'.*{message}"):
            env.step(EOS)

    def test_a_reference_with_another_tokenizer(self, reference):
        class Other(Exact):
            def __init__(self):
                super().__init__()
                self.tokenizer.eos_token = "a"

        with pytest.raises(UsageError, match="their tokenizers differ"):
            TextEnv(Other(), reference=reference)

    def test_a_budget_beyond_what_the_reference_reads(self, reference):
        class Long(Exact):
            response_length = 100

        with pytest.raises(UsageError, match="need 103 positions; the reference 'exact' has 16"):
            TextEnv(Long(), reference=reference)

    def test_a_time_limit_that_would_swallow_the_reward(self):
        limited = TimeLimit(make(reward="episode"), 4)
        with pytest.raises(UsageError, match="TimeLimit of 4 steps cuts episodes of up to 5"):
            limited.reset()
        TimeLimit(make(reward="episode"), 5).reset()
        TimeLimit(make(reward="token"), 4).reset()
        with pytest.raises(UsageError, match="TimeLimit of 2 steps"):
            gym.make("textenv/Exact-v0", reward="episode", max_episode_steps=2).reset()
