"""Importing textenv registers its environments, and costs next to nothing."""

import subprocess
import sys

import gymnasium as gym
import pytest

import textenv


def test_importing_loads_no_heavy_library():
    code = "import sys, textenv; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_both_ids_have_both_entry_points():
    for name in ("textenv/Concierge-v0", "textenv/Exact-v0"):
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


def test_what_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'TextEnvironment'"):
        textenv.TextEnvironment  # noqa: B018
