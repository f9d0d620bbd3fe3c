"""`textenv list`: what is known by name, with a line each, without importing what learns or computes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import tyro
from rich.console import Console
from rich.text import Text

Kind = Literal["tasks", "agents", "rewards", "raters", "models"]


@dataclasses.dataclass(frozen=True)
class ListConfig:
    """What to list."""

    kind: tyro.conf.Positional[Kind | None] = None
    """One kind only; None is all of them."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code."""
    config = tyro.cli(ListConfig, prog="textenv list", description=__doc__, args=list(arguments))
    console = console or Console()
    for kind in get_args(Kind) if config.kind is None else (config.kind,):
        lines = LISTS[kind]()
        width = max(map(len, lines))
        console.print(Text(kind, style="bold"))
        for name, line in lines.items():
            console.print(Text(f"  {name:<{width}}  {line}"), soft_wrap=True)
    return 0


def _tasks() -> Mapping[str, str]:
    from textenv.tasks import TASKS

    lines = {name: class_line(target) for name, target in TASKS.items()}
    return lines | {"text": class_line("textenv.tasks.text:TextTask") + " (--prompts FILE)"}


def _agents() -> Mapping[str, str]:
    from agents import AGENTS

    return {name: class_line(target) for name, target in AGENTS.items()}


def _rewards() -> Mapping[str, str]:
    from agents import REWARDS

    return REWARDS | {
        "FOLDER": "a reward model that a run has learned, as in RUN/reward_model",
        "module:callable": "your own function of a list of prompts and a list of responses",
    }


def _raters() -> Mapping[str, str]:
    from reward_models.raters import RATERS

    return {name: preset.description for name, preset in RATERS.items()}


def _models() -> Mapping[str, str]:
    from textenv.models import list_models

    return list_models() | {
        "FOLDER": "any transformers causal language model with its tokenizer, as safetensors",
        "owner/name": "the same from the Hugging Face hub",
    }


LISTS: Mapping[Kind, Callable[[], Mapping[str, str]]] = {
    "tasks": _tasks,
    "agents": _agents,
    "rewards": _rewards,
    "raters": _raters,
    "models": _models,
}


def class_line(target: str) -> str:
    """What the class at "module:Class" says of itself, read from its source without importing it.

    Returns:
        Its attribute `description` where that is a string, else the first line of its docstring.
    """
    module, _, class_name = target.partition(":")
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None
    assert spec.origin is not None, f"{top!r} is no package of files"
    file = Path(spec.origin).parent.joinpath(*rest).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    for statement in found.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "description":
            return str(ast.literal_eval(statement.value))
    return (ast.get_docstring(found) or "").partition("\n")[0]
