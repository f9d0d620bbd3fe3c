"""What is found beside our own names: "module:attribute", and what installed distributions bring by entry points.

A distribution of anyone's brings an agent, say, with these lines in its pyproject.toml:

    [project.entry-points."textenv.agents"]
    mine = "my_pkg.agent:MyAgent"

Names of ours always mean ours: to install something may not change what a command does.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from textenv.errors import UsageError, unknown_name
from textenv.imports import imported, users_code

Kind = Literal["agent", "task", "reward", "rater"]
"""What can be brought; the entry points' group is `textenv.` and its plural."""


class Plugin(NamedTuple):
    """One entry point of an installed distribution."""

    name: str
    target: str
    """Where it lies, as "module:attribute"."""
    distribution: str
    """Who brings it."""


def installed(kind: Kind) -> list[Plugin]:
    """What installed distributions bring, by name; nothing of it is imported."""
    found = {
        Plugin(point.name, point.value, "?" if point.dist is None else point.dist.name)
        for point in importlib.metadata.entry_points(group=f"textenv.{kind}s")
    }
    return sorted(found)


def known_names(kind: Kind, ours: Iterable[str]) -> list[str]:
    """Our names, and then those that distributions bring."""
    return list(dict.fromkeys([*ours, *(plugin.name for plugin in installed(kind))]))


def target_of(kind: Kind, name: str, ours: Iterable[str]) -> str:
    """Where something that is not ours lies, as "module:attribute".

    Args:
        kind: what it is.
        name: its place itself, or the name of an entry point.
        ours: the names that we know ourselves, for the message.

    Raises:
        UsageError: nobody knows the name, or two distributions bring it.
    """
    return name if ":" in name else _plugin(kind, name, ours).target


def load(kind: Kind, name: str, ours: Iterable[str]) -> Any:
    """What `target_of` names, imported.

    Raises:
        UsageError: nobody knows the name, two distributions bring it, or it cannot be imported.
    """
    if ":" in name:
        return imported(name)
    plugin = _plugin(kind, name, ours)
    try:
        return imported(plugin.target)
    except UsageError as error:
        raise UsageError(
            f"the {kind} {name!r} that the distribution {plugin.distribution} brings is broken: {error}"
        ) from error


def made(kind: Kind, name: str, found: Any) -> Any:
    """An instance of a class that was loaded, made without arguments; what is no class stays as it is.

    Raises:
        UsageError: the class cannot be made so.
    """
    if not isinstance(found, type):
        return found
    with users_code(f"the {kind} {name!r} could not be made", "expected is a class that takes no arguments"):
        return found()


def source_files(kind: Kind, name: str, ours: Iterable[str]) -> list[Path]:
    """The source of what is not ours: of the module that its place names, and of the one that it is written in.

    Of a module in a package it is every file of Python in the package, since it may call any of them. What a module
    that stands alone imports is not followed.

    Raises:
        UsageError: nobody knows the name, or it cannot be imported.
    """
    if name in ours:
        return []
    thing = load(kind, name, ours)
    written = thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)
    named = target_of(kind, name, ours).partition(":")[0]
    modules = (sys.modules.get(module) for module in (named, written.__module__))
    files = (getattr(module, "__file__", None) for module in modules)
    return list(dict.fromkeys(each for file in files if file is not None for each in _package(Path(file))))


def called(file: Path) -> str:
    """What tells a file from others: its place in its package, or its name where it is in none."""
    return file.relative_to(_outside(file)).as_posix()


def _package(file: Path) -> list[Path]:
    top = _outside(file)
    return [file] if file.parent == top else sorted((top / file.relative_to(top).parts[0]).rglob("*.py"))


def _outside(file: Path) -> Path:
    """The folder that a file's outermost package lies in."""
    return next((folder for folder in file.parents if not (folder / "__init__.py").exists()), file.parent)


def _plugin(kind: Kind, name: str, ours: Iterable[str]) -> Plugin:
    found = [plugin for plugin in installed(kind) if plugin.name == name]
    if not found:
        unknown = unknown_name(kind, name, known_names(kind, ours))
        raise UsageError(f"{unknown} One of your own is given as module:attribute.")
    if len(found) > 1:
        brought = " and ".join(f"{plugin.distribution} ({plugin.target})" for plugin in found)
        raise UsageError(
            f"the {kind} {name!r} is brought by {brought}; uninstall one of them, or name the one you mean "
            f"as {found[0].target}"
        )
    return found[0]
