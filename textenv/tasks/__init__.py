"""The tasks by name; a task is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from textenv.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from textenv.tasks.base import Task

TASKS: dict[str, str] = {
    "concierge": "textenv.tasks.concierge:Concierge",
    "exact": "textenv.tasks.exact:Exact",
}


def load(name: str) -> Task:
    """Makes a task: one of `TASKS`, or a class of your own given as "module:Class".

    Raises:
        UsageError: the name is not known, or the module or the class is not there.
    """
    if name not in TASKS and ":" not in name:
        raise unknown_name("task", name, TASKS)
    module_name, _, class_name = TASKS.get(name, name).partition(":")
    try:
        task_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the task {name!r} could not be imported: {error}") from error
    task: Task = task_class()
    return task
