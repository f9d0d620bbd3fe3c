"""`textenv list`: what is known by name, with a line each, without importing what learns or computes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import tyro
from rich.console import Console
from rich.text import Text

from textenv import plugins

Kind = Literal["tasks", "agents", "rewards", "raters", "models", "experiments"]


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
    lines["text"] = class_line("textenv.tasks.text:TextTask") + " (--prompts FILE)"
    return lines | _brought("task", lines) | {"module:Class": "your own, made without arguments"}


def _agents() -> Mapping[str, str]:
    from agents import AGENTS

    lines = {name: class_line(target) for name, target in AGENTS.items()}
    return lines | _brought("agent", lines) | {"module:Class": "your own; `textenv check module:Class` tries it"}


def _rewards() -> Mapping[str, str]:
    from agents import REWARDS

    return (
        REWARDS
        | _brought("reward", REWARDS)
        | {
            "FOLDER": "a reward model that a run has learned, as in RUN/reward_model",
            "module:callable": "your own function of a list of prompts and a list of responses, or a class of such",
        }
    )


def _raters() -> Mapping[str, str]:
    from reward_models.raters import RATERS

    lines = {name: preset.description for name, preset in RATERS.items()}
    return (
        lines
        | _brought("rater", lines)
        | {
            "FILE.toml": "a population of raters, described in TOML or JSON (`textenv raters show FILE`)",
            "module:Class": "your own, made without arguments",
        }
    )


def _models() -> Mapping[str, str]:
    from textenv.models import list_models

    return list_models() | {
        "FOLDER": "any transformers causal language model with its tokenizer, as safetensors",
        "owner/name": "the same from the Hugging Face hub",
    }


def _experiments() -> Mapping[str, str]:
    from benchmarks import experiments

    folder = Path(experiments.__file__).parent
    sources = {name: (folder / name / "__init__.py").read_text(encoding="utf-8") for name in experiments.names()}
    return {name: (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0] for name, source in sources.items()}


LISTS: Mapping[Kind, Callable[[], Mapping[str, str]]] = {
    "tasks": _tasks,
    "agents": _agents,
    "rewards": _rewards,
    "raters": _raters,
    "models": _models,
    "experiments": _experiments,
}


def _brought(kind: plugins.Kind, ours: Iterable[str]) -> dict[str, str]:
    """A line for each that an installed distribution brings, under the name by which it can be had."""
    lines = {}
    brought = plugins.installed(kind)
    taken = [*ours, *(plugin.name for plugin in brought)]
    for plugin in brought:
        try:
            line = class_line(plugin.target)
        except (LookupError, ImportError, OSError, SyntaxError, ValueError) as error:
            line = f"broken: {error}"
        notes = f"from {plugin.distribution}"
        name = plugin.name
        if taken.count(name) > 1:
            # The name means ours, or is refused where two others bring it; the place is always good.
            name, notes = plugin.target, f"{notes}; its name {name} is taken"
        lines[name] = f"{line} ({notes})".strip()
    return lines


def class_line(target: str) -> str:
    """What the class at "module:Class" says of itself, read from its source without importing it.

    Returns:
        Its attribute `description` where that is a string, else the first line of its docstring; of a
        function, too. Nothing where the module does not define it itself.

    Raises:
        LookupError: there is no such module.
        OSError: its source is not there.
        SyntaxError: its source cannot be read.
    """
    module, _, name = target.partition(":")
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = next((node for node in tree.body if isinstance(node, kinds) and node.name == name), None)
    if found is None:
        return ""
    for statement in found.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="description")], value=ast.Constant(value=str(line))):
                return line
    return (ast.get_docstring(found) or "").partition("\n")[0]


def _source(module: str) -> Path:
    """The file of a module that is not imported."""
    top, *rest = module.split(".")
    spec = find_spec(top) if top else None
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {top!r}")
    place = Path(spec.origin)
    if not rest:
        return place
    inner = place.parent.joinpath(*rest)
    return inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py")
