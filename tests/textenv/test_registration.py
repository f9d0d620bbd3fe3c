"""Importing textenv registers its environments, and costs next to nothing."""

import re
import subprocess
import sys

import datasets
import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium.utils.env_checker import check_env

import textenv
from textenv import models
from textenv.errors import UsageError
from textenv.rewards import PythonReward
from textenv.tasks.exact import Exact


def test_importing_loads_no_heavy_library():
    code = "import sys, textenv; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_id_has_both_entry_points():
    for name in ("textenv/Concierge-v0", "textenv/Exact-v0", "textenv/Text-v0"):
        spec = gym.spec(name)
        assert spec.entry_point is not None
        assert spec.vector_entry_point is not None


def test_make_and_make_vec():
    single = gym.make("textenv:textenv/Exact-v0", beta=0.25)
    assert isinstance(single.unwrapped, textenv.TextEnv)
    assert single.unwrapped.task.name == "exact"
    assert single.unwrapped.beta == 0.25
    vector = gym.make_vec("textenv/Exact-v0", num_envs=3, vectorization_mode="vector_entry_point", kl="full")
    assert isinstance(vector, textenv.TextVectorEnv)
    assert (vector.num_envs, vector.kl) == (3, "full")


class TestOwnPrompts:
    """`textenv/Text-v0` takes its prompts, its model and its reward when it is made."""

    texts = ("a b c", "d", "e a", "b b")
    reward = PythonReward(lambda _, responses: [float(len(each)) for each in responses], Exact().tokenizer)

    @pytest.mark.parametrize("kl", ["reference", "full"])
    def test_gymnasium_finds_nothing_to_warn_of(self, kl):
        arguments = {"prompts": self.texts, "model": "exact", "reward_function": self.reward, "response_length": 4}
        env = gym.make("textenv/Text-v0", **arguments, kl=kl, disable_env_checker=True).unwrapped
        check_env(env)
        assert (env.task.name, env.task.prompt_length, env.task.response_length, env.kl) == ("text", 3, 4, kl)
        assert env.reference.name == "exact"

    @pytest.mark.parametrize("render_mode", ["ansi", "human"])
    def test_it_is_rendered(self, render_mode, capsys):
        arguments = {"prompts": ["a b c"], "model": "exact", "reward_function": self.reward, "response_length": 4}
        env = gym.make("textenv/Text-v0", **arguments, render_mode=render_mode)
        env.reset(seed=0)
        env.step(2)
        env.step(3)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", env.render() or capsys.readouterr().out)
        assert shown.splitlines()[-1] == "a b c a b"

    def test_a_file_and_a_loaded_model_make_a_vector_environment(self, tmp_path):
        (tmp_path / "prompts.txt").write_text("\n".join(self.texts), encoding="utf-8")
        vector = gym.make_vec(
            "textenv/Text-v0", num_envs=3, vectorization_mode="vector_entry_point", prompts=tmp_path / "prompts.txt",
            model=models.load("exact"), reward_function=self.reward, prompt_length=4, response_length=5,
        )  # fmt: skip
        assert isinstance(vector, textenv.TextVectorEnv)
        observation, _ = vector.reset(seed=0)
        assert observation["input_ids"].shape == (3, 4 + 5)
        _, rewards, *_ = vector.step(np.full(3, vector.eos_id))
        # An empty response has a score of 0 and pays the KL term alone.
        assert (rewards < 0).all()

    def test_prompts_come_from_any_of_the_files_and_longer_ones_are_cut_if_asked(self, tmp_path):
        prompts = ["a b c d e", "b d e", "c"]
        pq.write_table(pa.table({"prompt": prompts}), tmp_path / "prompts.parquet")
        datasets.Dataset.from_dict({"prompt": prompts}).save_to_disk(tmp_path / "saved")
        arguments = {"model": "exact", "reward_function": self.reward, "response_length": 4, "prompt_length": 3}
        for place in (tmp_path / "prompts.parquet", str(tmp_path / "saved"), prompts):
            env = gym.make("textenv/Text-v0", prompts=place, **arguments, truncate_prompts=True).unwrapped
            texts = {
                env.task.prompt_text(env.task.fixed_prompts(split, 1)[0]) for split in ("train", "test", "validation")
            }
            assert texts == {"c d e", "b d e", "c"}
            with pytest.raises(UsageError, match="'a b c d e' has 5 tokens, more than the 3"):
                gym.make("textenv/Text-v0", prompts=place, **arguments)

    @pytest.mark.parametrize("make", [gym.make, gym.make_vec])
    def test_a_plain_function_is_a_reward(self, make):
        asked = []

        def words(prompts, responses):
            asked.extend(prompts)
            return [len(response.split()) for response in responses]

        env = make(
            "textenv/Text-v0", prompts=["a b c"], model="exact", reward_function=words, beta=0.0, response_length=4
        )
        env.reset(seed=0)
        action = {token: np.int64(token) if make is gym.make else np.full(1, token) for token in (1, 3)}
        env.step(action[3])
        _, reward, *_ = env.step(action[1])
        assert reward == 1.0
        assert asked == ["a b c"]

    @pytest.mark.parametrize("missing", ["prompts", "model", "reward_function"])
    @pytest.mark.parametrize("make", [gym.make, gym.make_vec])
    def test_what_was_left_out_is_said(self, make, missing):
        arguments = {"prompts": self.texts, "model": "exact", "reward_function": self.reward}
        with pytest.raises(UsageError, match=f"made without {missing}; it needs"):
            make("textenv/Text-v0", **arguments | {missing: None})


def test_what_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'TextEnvironment'"):
        textenv.TextEnvironment  # noqa: B018
