"""RLHF as a Gymnasium benchmark: text generation is an environment, choosing a token an action.

Importing this package registers the tasks' ids (`textenv/Concierge-v0` and so on) and `textenv/Text-v0`
with Gymnasium and nothing more: the heavy libraries are imported when an environment is made.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from textenv.env import TextEnv as TextEnv
    from textenv.record_episodes import RecordEpisodes as RecordEpisodes
    from textenv.record_episodes import RecordVectorEpisodes as RecordVectorEpisodes
    from textenv.vector_check import check_vector_env as check_vector_env
    from textenv.vector_env import TextVectorEnv as TextVectorEnv

_EXPORTS = {
    "RecordEpisodes": "textenv.record_episodes",
    "RecordVectorEpisodes": "textenv.record_episodes",
    "TextEnv": "textenv.env",
    "TextVectorEnv": "textenv.vector_env",
    "check_vector_env": "textenv.vector_check",
}

__all__ = ["RecordEpisodes", "RecordVectorEpisodes", "TextEnv", "TextVectorEnv", "check_vector_env"]

_ENVIRONMENTS = {
    f"textenv/{name.capitalize()}-v0": name
    for name in ("concierge", "reviews", "summary", "translate", "classify", "exact")
}
_OWN_PROMPTS = "textenv/Text-v0"
_TASK_ARGUMENTS = ("prompt_length", "response_length", "chat", "truncate_prompts")

for _id, _task in _ENVIRONMENTS.items():
    if _id not in registry:
        register(
            _id,
            entry_point="textenv.env:TextEnv",
            vector_entry_point="textenv.vector_env:TextVectorEnv",
            kwargs={"task": _task},
        )
if _OWN_PROMPTS not in registry:
    register(_OWN_PROMPTS, entry_point="textenv:make_text_env", vector_entry_point="textenv:make_text_vector_env")


def make_text_env(**arguments: Any) -> TextEnv:
    """Makes `textenv/Text-v0`: prompts of your own, answered by a language model.

    Args:
        arguments: `prompts`, a list of texts or the place of text, JSONL, Parquet or a saved dataset that
            `TextTask.from_file` takes; `model`, a `LanguageModel` or what `textenv.models.load` takes;
            any of `prompt_length`, `response_length`, `chat` and `truncate_prompts`, as for
            `TextTask.from_texts`; and those of `TextEnv`, of which `reward_function` is needed. That
            may also be a plain function of a list of prompts and a list of responses.

    Raises:
        UsageError: one that is needed was left out, or cannot be used.
    """
    from textenv.env import TextEnv

    return TextEnv(**_with_task(arguments))


def make_text_vector_env(**arguments: Any) -> TextVectorEnv:
    """As `make_text_env`, with the arguments of `TextVectorEnv`."""
    from textenv.vector_env import TextVectorEnv

    return TextVectorEnv(**_with_task(arguments))


def _with_task(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an environment, from those of `make_text_env`."""
    from textenv import models
    from textenv.errors import UsageError
    from textenv.rewards import PythonReward
    from textenv.tasks.text import TextTask

    missing = [name for name in ("prompts", "model", "reward_function") if arguments.get(name) is None]
    if missing:
        raise UsageError(
            f"{_OWN_PROMPTS} was made without {', '.join(missing)}; it needs prompts=... (a list of texts, a file or a "
            "dataset's folder), model=... (a name, a folder or a LanguageModel) and reward_function=..., since no "
            "truth is known"
        )
    rest = dict(arguments)
    prompts, model = rest.pop("prompts"), rest.pop("model")
    if isinstance(model, str | Path):
        model = models.load(str(model))
    encode = TextTask.from_file if isinstance(prompts, str | Path) else TextTask.from_texts
    if not hasattr(rest["reward_function"], "name"):
        rest["reward_function"] = PythonReward(rest["reward_function"], model.tokenizer)
    settings = {name: rest.pop(name) for name in _TASK_ARGUMENTS if name in rest}
    return {"reference": model} | rest | {"task": encode(prompts, model, **settings)}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
