"""check_vector_env passes ours, and catches each way of being wrong."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from textenv import models
from textenv.env import TextEnv
from textenv.vector_check import check_vector_env
from textenv.vector_env import TextVectorEnv

REFERENCE = models.load("exact")


def check(vector_class, **arguments):
    check_vector_env(
        lambda mode: vector_class("exact", num_envs=3, reference=REFERENCE, autoreset_mode=mode, **arguments),
        lambda: TextEnv("exact", reference=REFERENCE, **arguments),
        steps=15,
    )


@pytest.mark.parametrize("kl", ["full", "reference"])
@pytest.mark.parametrize("reward", ["token", "episode"])
def test_ours_passes(kl, reward):
    check(TextVectorEnv, kl=kl, reward=reward)


class PaysMore(TextVectorEnv):
    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, rewards + 1e-3, *rest


class ReusesItsArrays(TextVectorEnv):
    def step(self, actions):
        observations, *rest = super().step(actions)
        self.kept = getattr(self, "kept", observations)
        for name, array in observations.items():
            self.kept[name][:] = array
        return self.kept, *rest


class SeedsAllAlike(TextVectorEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None if seed is None else [seed] * self.num_envs, options=options)


class NeverEnds(TextVectorEnv):
    def step(self, actions):
        observations, rewards, terminated, truncated, infos = super().step(actions)
        return observations, rewards, np.zeros_like(terminated), truncated, infos


class SaysLess(TextVectorEnv):
    def step(self, actions):
        *rest, infos = super().step(actions)
        return *rest, {key: value for key, value in infos.items() if "gold" not in key}


class OnlyKnowsNextStep(TextVectorEnv):
    def __init__(self, *arguments, autoreset_mode, **named):
        super().__init__(*arguments, autoreset_mode=AutoresetMode.NEXT_STEP, **named)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (PaysMore, r"step 0\[1\]: the vector environment gives"),
        (ReusesItsArrays, "was returned again"),
        (SeedsAllAlike, "reset.*input_ids|reset.*attention_mask"),
        (NeverEnds, r"\[2\]: the vector environment gives"),
        (SaysLess, "the keys are"),
        (OnlyKnowsNextStep, "autoreset_mode"),
    ],
)
def test_what_is_wrong_is_found(wrong, message):
    with pytest.raises(AssertionError, match=message):
        check(wrong)
