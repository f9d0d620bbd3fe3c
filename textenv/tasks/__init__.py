"""The tasks by name; a task is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textenv import plugins
from textenv.errors import UsageError
from textenv.imports import imported

if TYPE_CHECKING:
    from textenv.tasks.base import Task

TASKS: dict[str, str] = {
    "concierge": "textenv.tasks.concierge:Concierge",
    "reviews": "textenv.tasks.reviews:Reviews",
    "summary": "textenv.tasks.summary:Summary",
    "translate": "textenv.tasks.translate:Translate",
    "classify": "textenv.tasks.classify:Classify",
    "exact": "textenv.tasks.exact:Exact",
}


def load(name: str) -> Task:
    """Makes a task: one of `TASKS`, one that an installed distribution brings, or "module:Class".

    Raises:
        UsageError: the name is not known, the class cannot be imported or made, or it is no task.
    """
    task_class = imported(TASKS[name]) if name in TASKS else plugins.load("task", name, TASKS)

    from textenv.tasks.base import Task

    task: Task = plugins.made("task", name, task_class)
    members = [member for member in {**Task.__annotations__, **vars(Task)} if not member.startswith("_")]
    missing = [member for member in members if not hasattr(task, member)]
    if missing:
        raise UsageError(
            f"{name!r} is no task: it lacks {', '.join(missing)}; textenv.tasks.base.Task tells what a task has"
        )
    return task
