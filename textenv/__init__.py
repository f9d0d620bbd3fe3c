"""RLHF as a Gymnasium benchmark: text generation is an environment, choosing a token an action.

Importing this package registers `textenv/Concierge-v0` and `textenv/Exact-v0` with Gymnasium and
nothing more: the heavy libraries are imported when an environment is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from textenv.env import TextEnv as TextEnv
    from textenv.vector_check import check_vector_env as check_vector_env
    from textenv.vector_env import TextVectorEnv as TextVectorEnv

_EXPORTS = {
    "TextEnv": "textenv.env",
    "TextVectorEnv": "textenv.vector_env",
    "check_vector_env": "textenv.vector_check",
}

__all__ = ["TextEnv", "TextVectorEnv", "check_vector_env"]

_ENVIRONMENTS = {"textenv/Concierge-v0": "concierge", "textenv/Exact-v0": "exact"}

for _id, _task in _ENVIRONMENTS.items():
    if _id not in registry:
        register(
            _id,
            entry_point="textenv.env:TextEnv",
            vector_entry_point="textenv.vector_env:TextVectorEnv",
            kwargs={"task": _task},
        )


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
