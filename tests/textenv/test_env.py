"""The single environment: rewards worked out from the model, ends and bad input."""

import numpy as np
import pytest
import torch

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


class Failing(Rule):
    """The same rule, which fails while it is told to: it raises, or returns too many scores."""

    def __init__(self, failure):
        self.failure = failure
        self.fails = False

    def __call__(self, responses):
        scores = super().__call__(responses)
        if not self.fails:
            return scores
        if self.failure is None:
            return torch.cat([scores, scores])
        raise self.failure("no")


def same_step(ours, theirs):
    """Equal to the bit, infos included."""
    np.testing.assert_equal(ours, theirs)


TASK, REFERENCE = Exact(), models.load("exact")


def make(**arguments):
    return TextEnv(TASK, reference=REFERENCE, **arguments)


def reference_logprobs(prompt, response):
    prompts = Prompts.from_lists([prompt], pad_id=0)
    return REFERENCE.logprobs(Responses.from_lists(prompts, [response], pad_id=0))[0].tolist()


def prompt_of(observation):
    keep = observation["attention_mask"][:3] == 1
    return observation["input_ids"][:3][keep].tolist()


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


def test_the_reference_term_is_paid_at_each_step_and_the_score_at_the_end():
    env = make(beta=0.5, reward_function=Rule())
    prompt = prompt_of(env.reset(seed=1)[0])
    rewards = [env.step(token)[1] for token in (A, B, EOS)]
    first, second, third = reference_logprobs(prompt, [A, B, EOS])
    np.testing.assert_allclose(rewards, [0.5 * first, 0.5 * second, 0.5 * third + 2.0], atol=1e-5)


def test_the_full_term_is_the_log_ratio():
    env = make(beta=0.5, kl="full", reward_function=Rule())
    prompt = prompt_of(env.reset(seed=1)[0])
    rewards = [env.step({"token": token, "logprob": -1.5})[1] for token in (A, B, EOS)]
    first, second, third = reference_logprobs(prompt, [A, B, EOS])
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
        prompt = env.task.tokenizer.decode(prompt_of(env.reset(seed=0)[0]))
        env.step(EOS)
        with pytest.raises(UsageError, match=f"environment 0, prompt '{prompt}': step was called after the end"):
            env.step(A)
        env.reset()
        assert not env.step(A)[2]

    def test_unknown_option(self):
        with pytest.raises(UsageError, match=r"unknown reset options \['group_size'\]"):
            make().reset(options={"group_size": 2})

    def test_an_unknown_option_changes_nothing(self):
        env, twin = make(), make()
        for each in (env, twin):
            each.reset(seed=0)
            each.step(A)
        with pytest.raises(UsageError):
            env.reset(seed=9, options={"prompt": "a"})
        for action in (B, EOS):
            same_step(env.step(action), twin.step(action))
        np.testing.assert_array_equal(env.reset()[0]["input_ids"], twin.reset()[0]["input_ids"])

    @pytest.mark.parametrize("bad", [[], [2, 3, 2, 3]])
    def test_a_task_that_gives_no_prompt_or_a_longer_one_than_it_says(self, bad):
        class Careless(Exact):
            def sample_prompts(self, split, count, rng):
                return [bad if self.careless else [A, B]] * count

        task = Careless()
        task.careless = False
        env = TextEnv(task)
        first = env.reset(seed=0)[0]
        task.careless = True
        text = task.tokenizer.decode(bad)
        message = (
            f"environment 0, prompt '{text}': the task 'exact' gave a prompt of {len(bad)} tokens; expected are 1 to 3"
        )
        with pytest.raises(UsageError, match=message):
            env.reset()
        task.careless = False
        assert env.step(A)[0]["input_ids"][3] == A  # The first episode goes on.
        np.testing.assert_array_equal(env.reset()[0]["input_ids"], first["input_ids"])

    @pytest.mark.parametrize(
        "action", [7, -1, 1.0, True, "a", [1, 2], [1, [2]], None, {"token": 1, "logprob": -1.0}, np.array([1])]
    )
    def test_actions_that_are_no_tokens(self, action):
        env = make()
        prompt = env.task.tokenizer.decode(prompt_of(env.reset(seed=0)[0]))
        with pytest.raises(UsageError, match=f"environment 0, prompt '{prompt}': "):
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

    @pytest.mark.parametrize("reward", ["token", "episode"])
    @pytest.mark.parametrize("kl", ["reference", "full"])
    def test_a_refused_action_changes_nothing(self, kl, reward):
        env, twin = make(kl=kl, reward=reward), make(kl=kl, reward=reward)
        for each in (env, twin):
            each.reset(seed=0)
        for token in (A, B, EOS):
            for bad in (7, "a", {"token": 1.5, "logprob": -1.0}, {"token": A, "logprob": 1.0}):
                with pytest.raises(UsageError):
                    env.step(bad)
            action = token if kl == "reference" else {"token": token, "logprob": -1.0}
            same_step(env.step(action), twin.step(action))

    @pytest.mark.parametrize("reward", ["token", "episode"])
    @pytest.mark.parametrize("kl", ["reference", "full"])
    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, None])
    def test_after_a_failing_reward_function_the_step_can_be_repeated_or_another_taken(self, kl, reward, failure):
        function = Failing(failure)
        env = make(kl=kl, reward=reward, reward_function=function)
        twin = make(kl=kl, reward=reward, reward_function=Rule())

        def action(token):
            return token if kl == "reference" else {"token": token, "logprob": -1.0}

        for last in (EOS, A):
            for each in (env, twin):
                each.reset(seed=0)
                each.step(action(A))
            if last == A:
                for _ in range(3):
                    same_step(env.step(action(B)), twin.step(action(B)))
            function.fails = True
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else TextenvError):
                    env.step(action(last))
            function.fails = False
            same_step(env.step(action(last)), twin.step(action(last)))
        # Instead of being repeated, the end can be put off, or the episode given up.
        for given_up in (False, True):
            for each in (env, twin):
                each.reset(seed=1)
                each.step(action(A))
            function.fails = True
            with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else TextenvError):
                env.step(action(EOS))
            function.fails = False
            if given_up:
                np.testing.assert_array_equal(env.reset()[0]["input_ids"], twin.reset()[0]["input_ids"])
            for token in (B, EOS):
                same_step(env.step(action(token)), twin.step(action(token)))

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

    def test_a_reference_with_another_tokenizer(self):
        class Other(Exact):
            def __init__(self):
                super().__init__()
                self.tokenizer.eos_token = "a"

        with pytest.raises(UsageError, match="their tokenizers differ"):
            TextEnv(Other(), reference=REFERENCE)

    def test_a_budget_beyond_what_the_reference_reads(self):
        class Long(Exact):
            response_length = 100

        with pytest.raises(UsageError, match="need 103 positions; the reference 'exact' has 16"):
            TextEnv(Long(), reference=REFERENCE)
