"""Settings of agents that a sweep tries: what `--set ppo.learning_rate=1e-3,5e-4` means, checked and named."""

from __future__ import annotations

import dataclasses
import itertools
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from agents import load_agent
from textenv.errors import UsageError, unknown_name
from textenv.imports import users_code

Settings: TypeAlias = "Mapping[str, Any]"
"""Fields of an agent's config with the values that they are given; the others stay at their defaults."""

EXAMPLE = "expected AGENT.FIELD=VALUE,VALUE…, as in ppo.learning_rate=1e-3,5e-4"


def parse(words: Sequence[str], agents: Sequence[str]) -> dict[str, list[Settings]]:
    """By agent the settings that are asked for: every combination of the values of its fields.

    Args:
        words: each "AGENT.FIELD=VALUE,VALUE…".
        agents: of the sweep.

    Raises:
        UsageError: an agent, a field or a value is not known, or is named twice.
    """
    levels: dict[str, dict[str, list[Any]]] = {}
    for word in words:
        target, equals, values = word.partition("=")
        agent, _, field = target.rpartition(".")
        if not (equals and agent and field and values):
            raise UsageError(f"--set {word}: {EXAMPLE}")
        if agent not in agents:
            raise UsageError(f"--set {word}: {unknown_name('agent of this sweep', agent, agents)}")
        config_class = load_agent(agent).config_class
        fields = {each.name for each in dataclasses.fields(config_class) if each.init}
        if field not in fields:
            raise UsageError(f"--set {word}: {unknown_name(f'setting of {agent}', field, fields)}")
        hint = get_type_hints(config_class)[field]
        read = [_read(value, hint, word) for value in values.split(",")]
        double = field in levels.setdefault(agent, {}) or len(set(read)) < len(read)
        if double:
            raise UsageError(f"--set {word}: {field} of {agent} is given the same value or the same field twice")
        levels[agent][field] = read
    return {
        agent: [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]
        for agent, fields in levels.items()
    }


def config_of(agent: str, settings: Settings) -> Any:
    """An agent's config with these settings.

    Raises:
        UsageError: they are out of their range, or do not go together.
    """
    failure = f"{agent} cannot be made with {named(settings) or 'its defaults'}"
    with users_code(failure, "expected are settings that go together"):
        return load_agent(agent).config_class(**settings)


def named(settings: Settings) -> str:
    """What tables call settings: field=value, parted by commas."""
    return ", ".join(
        f"{field}={value:g}" if isinstance(value, float) else f"{field}={value}" for field, value in settings.items()
    )


def _read(text: str, hint: Any, word: str) -> Any:
    """A value as the field's type has it.

    Raises:
        UsageError: it is none, naming what is expected.
    """
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint)}
        if text not in choices:
            raise UsageError(f"--set {word}: {unknown_name('value', text, choices)}")
        return choices[text]
    kinds = _alternatives(hint)
    for kind in kinds:
        if kind is type(None) and text.lower() == "none":
            return None
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if get_origin(kind) is Literal and text in map(str, get_args(kind)):
            return next(choice for choice in get_args(kind) if str(choice) == text)
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                continue
    expected = " or ".join(_called(kind) for kind in kinds)
    raise UsageError(f"--set {word}: {text!r} is not {expected}")


def _alternatives(hint: Any) -> Sequence[Any]:
    """The types of a union, whole numbers before others and text, which anything is, last."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    order = {int: 0, float: 1, str: 3}
    return sorted(kinds, key=lambda kind: order.get(kind, 2))


def _called(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}
    return words.get(kind, f"a {getattr(kind, '__name__', kind)} that can be given on the command line")
