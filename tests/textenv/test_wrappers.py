"""Gymnasium's own wrappers do around our environments what they do around any other."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

from textenv import models
from textenv.env import TextEnv
from textenv.errors import UsageError
from textenv.vector_env import TextVectorEnv

EOS, A, B = 1, 2, 3
# Each row is a step; the episodes end by EOS and by length, alone and together.
ACTIONS = np.array([[A, EOS, B], [B, A, EOS], [A, EOS, EOS], [A, B, A], [A, A, A], [EOS, EOS, A], [A, A, A]])


@pytest.fixture(scope="module")
def reference():
    return models.load("exact")


def make(reference, **arguments):
    return TextEnv("exact", reference=reference, **arguments)


class TestSingle:
    def test_time_limit_truncates_what_has_not_ended(self, reference):
        env = wrappers.TimeLimit(make(reference), 3)
        env.reset(seed=0)
        ends = [env.step(A)[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]
        env.reset()
        assert env.step(EOS)[2:4] == (True, False)

    def test_record_episode_statistics(self, reference):
        env = wrappers.RecordEpisodeStatistics(make(reference))
        env.reset(seed=0)
        rewards = [env.step(token)[1] for token in (A, B)]
        _, last, _, _, info = env.step(EOS)
        assert info["episode"]["l"] == 3
        assert info["episode"]["r"] == pytest.approx(sum(rewards) + last, abs=1e-5)
        assert info["end"] == "eos"

    def test_transform_reward(self, reference):
        plain, doubled = make(reference), wrappers.TransformReward(make(reference), lambda reward: 2 * reward)
        plain.reset(seed=0)
        doubled.reset(seed=0)
        for token in (A, EOS):
            assert doubled.step(token)[1] == 2 * plain.step(token)[1]

    def test_flatten_observation(self, reference):
        env = wrappers.FlattenObservation(make(reference))
        observation, _ = env.reset(seed=0)
        plain = make(reference).reset(seed=0)[0]
        assert observation in env.observation_space
        np.testing.assert_array_equal(observation, np.concatenate([plain["attention_mask"], plain["input_ids"]]))

    def test_all_of_them_on_one_another(self, reference):
        env = wrappers.TimeLimit(make(reference, reward="episode"), 5)
        env = wrappers.FlattenObservation(wrappers.RecordEpisodeStatistics(env))
        env = wrappers.TransformReward(env, lambda reward: reward + 100)
        env.reset(seed=0)
        assert env.step(A)[1] == 100
        assert env.step(EOS)[4]["episode"]["l"] == 2


class TestTimeLimitThatSwallowsTheReward:
    """With reward="episode", an episode that is cut is paid nothing."""

    message = "TimeLimit of 4 steps cuts episodes of up to 5"

    def limited(self, reference, steps=4, **arguments):
        return wrappers.TimeLimit(make(reference, **{"reward": "episode"} | arguments), steps)

    def test_it_is_refused_wherever_it_is(self, reference):
        for wrap in (lambda env: env, wrappers.RecordEpisodeStatistics, wrappers.FlattenObservation):
            with pytest.raises(UsageError, match=self.message):
                wrap(self.limited(reference)).reset()
        with pytest.raises(UsageError, match=self.message):
            wrappers.TimeLimit(wrappers.OrderEnforcing(make(reference, reward="episode")), 4).reset()

    def test_it_is_refused_when_gymnasium_makes_it(self):
        arguments = {"reward": "episode", "max_episode_steps": 4}
        with pytest.raises(UsageError, match=self.message):
            gym.make("textenv/Exact-v0", **arguments).reset()
        with pytest.raises(UsageError, match=self.message):
            gym.make_vec("textenv/Exact-v0", num_envs=2, vectorization_mode="sync", **arguments).reset()

    def test_it_is_refused_within_vector_environments(self, reference):
        with pytest.raises(UsageError, match=self.message):
            SyncVectorEnv([lambda: self.limited(reference)]).reset()
        workers = AsyncVectorEnv([lambda: self.limited(reference)])
        try:
            with (
                pytest.warns(UserWarning, match="ERROR"),
                pytest.raises(UsageError, match=self.message),
            ):
                workers.reset()
        finally:
            workers.close(terminate=True)

    def test_others_are_not(self, reference):
        self.limited(reference, 5).reset()
        self.limited(reference, reward="token").reset()
        # The limit of another environment, whose reset is under way, is no matter of ours.
        outer = self.limited(reference, 2, reward="token")
        inner = make(reference, reward="episode")
        reset = outer.unwrapped.reset
        outer.unwrapped.reset = lambda **named: (inner.reset(), reset(**named))[1]
        outer.reset()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(
    "wrap",
    [
        vector_wrappers.RecordEpisodeStatistics,
        vector_wrappers.NormalizeReward,
        vector_wrappers.DictInfoToList,
        lambda env: vector_wrappers.TransformReward(env, lambda reward: 3 * reward),
        lambda env: vector_wrappers.ClipReward(env, -1.0, 0.5),
        vector_wrappers.FlattenObservation,
        lambda env: vector_wrappers.FilterObservation(env, ["input_ids"]),
        lambda env: vector_wrappers.DictInfoToList(vector_wrappers.RecordEpisodeStatistics(env)),
    ],
    ids=["statistics", "normalize", "list", "transform", "clip", "flatten", "filter", "statistics and list"],
)
def test_vector_wrappers_do_the_same_around_ours_and_gymnasiums(reference, wrap, mode, request):
    if mode == AutoresetMode.SAME_STEP and request.node.callspec.id.startswith(("flatten", "filter")):
        with pytest.raises(ValueError, match="Expected autoreset_mode to be NEXT_STEP or DISABLED"):
            wrap(SyncVectorEnv([lambda: make(reference)], autoreset_mode=mode))
        return
    ours = wrap(TextVectorEnv("exact", num_envs=3, reference=reference, autoreset_mode=mode))
    theirs = wrap(SyncVectorEnv([lambda: make(reference)] * 3, autoreset_mode=mode))
    assert ours.observation_space == theirs.observation_space
    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    for actions in ACTIONS:
        result, expected = ours.step(actions), theirs.step(actions)
        assert_same(result, expected)
        ended = expected[2] | expected[3]
        if mode == AutoresetMode.DISABLED and ended.any():
            # Gymnasium's statistics begin anew everywhere once SyncVectorEnv has taken the mask out of the options.
            results = [env.reset(options={"reset_mask": ended.copy()}) for env in (ours, theirs)]
            if "statistics" in request.node.callspec.id:
                break
            assert_same(*results)


def assert_same(ours, theirs):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"t"}:  # how long an episode took
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple | list) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, np.ndarray | float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    else:
        assert ours == theirs
