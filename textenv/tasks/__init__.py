"""The tasks by name; a task is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textenv.errors import UsageError, unknown_name
from textenv.imports import imported, users_code

if TYPE_CHECKING:
    from textenv.tasks.base import Task

TASKS: dict[str, str] = {
    "concierge": "textenv.tasks.concierge:Concierge",
    "exact": "textenv.tasks.exact:Exact",
}


def load(name: str) -> Task:
    """Makes a task: one of `TASKS`, or a class of your own given as "module:Class".

    Raises:
        UsageError: the name is not known, the class cannot be imported or made, or it is no task.
    """
    if name not in TASKS and ":" not in name:
        raise unknown_name("task", name, TASKS)
    task_class = imported(TASKS.get(name, name))

    from textenv.tasks.base import Task

    with users_code(f"the task {name!r} could not be made", "expected is a class that takes no arguments"):
        task: Task = task_class()
    members = [member for member in {**Task.__annotations__, **vars(Task)} if not member.startswith("_")]
    missing = [member for member in members if not hasattr(task, member)]
    if missing:
        raise UsageError(
            f"{name!r} is no task: it lacks {', '.join(missing)}; textenv.tasks.base.Task tells what a task has"
        )
    return task
