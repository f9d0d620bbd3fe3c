"""A check for vector environments: are they the same as single ones side by side?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.passive_env_checker import data_shares_objects
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv


def check_vector_env(
    make_vector: Callable[[AutoresetMode], VectorEnv[Any, Any, Any]],
    make_single: Callable[[], gym.Env[Any, Any]],
    *,
    seed: int = 0,
    steps: int = 40,
    tolerance: float = 1e-5,
) -> None:
    """Steps a vector environment beside N single ones, in all three autoreset modes.

    Seeds and actions are the same on both sides; observations, ends and infos must be equal, and
    floating-point numbers within `tolerance`, absolute and relative. Arrays that were returned must
    not be returned again.

    Args:
        make_vector: makes the vector environment with the given autoreset mode.
        make_single: makes one of the single environments that it stands for.
        seed: seeds the environments and the actions.
        steps: how many steps are compared in each mode.
        tolerance: by how much rewards and other floating-point numbers may differ.

    Raises:
        AssertionError: the two differ; it says in which mode, at which step and where.
    """
    for mode in AutoresetMode:
        vector = make_vector(mode)
        single = SyncVectorEnv([make_single] * vector.num_envs, autoreset_mode=mode)
        try:
            _check_spaces(vector, single, mode)
            _check_run(vector, single, mode, seed, steps, tolerance)
        finally:
            vector.close()
            single.close()


def _check_spaces(vector: VectorEnv[Any, Any, Any], single: SyncVectorEnv, mode: AutoresetMode) -> None:
    found = vector.metadata.get("autoreset_mode")
    assert found == mode, f'metadata["autoreset_mode"] is {found}, and {mode} was asked for'
    for name in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(vector, name) == getattr(single, name), (
            f"{name} is {getattr(vector, name)}; single environments side by side have {getattr(single, name)}"
        )


def _check_run(
    vector: VectorEnv[Any, Any, Any],
    single: SyncVectorEnv,
    mode: AutoresetMode,
    seed: int,
    steps: int,
    tolerance: float,
) -> None:
    vector.action_space.seed(seed)
    _check_equal(vector.reset(seed=seed), single.reset(seed=seed), tolerance, f"{mode.value}, reset")
    previous: Any = None
    for step in range(steps):
        where = f"{mode.value}, step {step}"
        actions = vector.action_space.sample()
        result = vector.step(actions)
        _check_equal(result, single.step(actions), tolerance, where)
        observations, rewards, terminated, truncated, _ = result
        assert observations in vector.observation_space, f"{where}: the observations are not in the observation space"
        # Both are kept alive, so that one object cannot be taken for another that used to be at its address.
        assert previous is None or not data_shares_objects(previous, (observations, rewards)), (
            f"{where}: an array that was returned before was returned again; return new ones at every step"
        )
        previous = (observations, rewards)
        ended = terminated | truncated
        if mode == AutoresetMode.DISABLED and ended.any():
            # Each side gets options of its own: SyncVectorEnv takes the mask out of them.
            ours, theirs = (env.reset(options={"reset_mask": ended.copy()}) for env in (vector, single))
            _check_equal(ours, theirs, tolerance, f"{where}, reset by mask")


def _check_equal(ours: Any, theirs: Any, tolerance: float, where: str) -> None:
    """Compares nested dictionaries, tuples and arrays; floating-point numbers within the tolerance."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), (
            f"{where}: the keys are {sorted(ours)}; those of single environments are {sorted(theirs)}"
        )
        for key in theirs:
            _check_equal(ours[key], theirs[key], tolerance, f"{where}: {key}")
    elif isinstance(theirs, tuple) or (isinstance(theirs, np.ndarray) and theirs.dtype == object):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            _check_equal(one, other, tolerance, f"{where}[{index}]")
    elif isinstance(theirs, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), (
            f"{where}: it is {ours.shape} {ours.dtype}; with single environments, {theirs.shape} {theirs.dtype}"
        )
        inexact = np.issubdtype(theirs.dtype, np.inexact)
        equal = np.allclose(ours, theirs, rtol=tolerance, atol=tolerance) if inexact else np.array_equal(ours, theirs)
        assert equal, f"{where}: the vector environment gives {ours}; single ones give {theirs}"
    else:
        assert ours == theirs, f"{where}: the vector environment gives {ours!r}; single ones give {theirs!r}"
