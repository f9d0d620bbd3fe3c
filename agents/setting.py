"""Loading what a run names: its task, its reference and its reward, each checked against the others."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from textenv import models, tasks
from textenv.errors import UsageError, unknown_name
from textenv.language_model import LanguageModel
from textenv.tasks.base import Task
from textenv.tasks.text import TextTask


def load_task(name: str, model: str | None) -> tuple[Task, LanguageModel]:
    """The task called `name` and the model that is its reference.

    Args:
        name: of `textenv.tasks.TASKS`, or "module:Class".
        model: what `textenv.models.load` takes; None is the task's own.

    Raises:
        UsageError: a name is not known, or task and model do not go together.
    """
    if name not in tasks.TASKS and ":" not in name:
        raise unknown_name("task", name, [*tasks.TASKS, "text"])
    task = tasks.load(name)
    reference = models.load(model or task.reference)
    if reference.tokenizer.get_vocab() != task.tokenizer.get_vocab():
        raise UsageError(
            f"the model {reference.name!r} has another vocabulary than the task {task.name!r}, whose prompts it could "
            f"not read; leave --model out, give a model made from {task.reference!r}, or use --prompts FILE"
        )
    needed = task.prompt_length + task.response_length
    if reference.max_length < needed:
        raise UsageError(
            f"the model {reference.name!r} takes {reference.max_length} tokens, but prompts and responses of "
            f"{task.name!r} have up to {needed}; give a model that takes more"
        )
    return task, reference


def load_own_prompts(
    prompts: Path | None, model: str | None, response_length: int | None, *, chat: bool
) -> tuple[Task, LanguageModel]:
    """The task of a file of prompts, and the model that reads them.

    Args:
        prompts: a file that `TextTask.from_file` takes.
        model: what `textenv.models.load` takes.
        response_length: most tokens of a response; None is the task's default.
        chat: whether each prompt is put into the model's chat template.

    Raises:
        UsageError: prompts or model are missing, unknown or cannot be used.
    """
    if prompts is None:
        raise UsageError("the task text is about prompts of your own; give their file with --prompts FILE")
    if model is None:
        raise UsageError("prompts of your own need a model that reads them: --model smollm2, a folder or a hub name")
    length = {} if response_length is None else {"response_length": response_length}
    reference = models.load(model)
    return TextTask.from_file(prompts, reference, chat=chat, **length), reference


def imported(name: str) -> Any:
    """What "module:callable" names.

    Raises:
        UsageError: the module cannot be imported, or has no such callable.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{name!r} could not be imported: {error}; expected module:callable") from error
    if not callable(function):
        raise UsageError(f"{name!r} is a {type(function).__name__}, expected something to call")
    return function
