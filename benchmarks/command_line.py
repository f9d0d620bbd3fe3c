"""The command that makes a run again, from the config that its folder keeps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from agents import load_agent
from agents.rlhf import RLHFConfig
from textenv.errors import UsageError

ALWAYS_NAMED = ("task", "agent", "reward", "seed")
"""What tells runs apart; other flags are left out where they say the default."""


def command(config: Mapping[str, Any], threads: int) -> str:
    """The `textenv train` that asks for `config` on as many threads.

    Args:
        config: as in a run's config.json.
        threads: the run's; sums, and so weights, depend on them.
    """
    try:
        algorithm = load_agent(config["agent"]).config_class()
        defaults = flat(RLHFConfig(agent=config["agent"], algorithm=algorithm).to_json())
    except (UsageError, KeyError):
        defaults = {}  # An agent that is not installed here: no flag is known to be its default.
    words = ["textenv", "train"]
    for name, value in (flat(config) | {"threads": threads}).items():
        if name in ALWAYS_NAMED or name not in defaults or defaults[name] != value:
            words += _flag(name, value)
    return shlex.join(words)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as one level, the names joined by dots as on the command line."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return values


def _flag(name: str, value: object) -> list[str]:
    if value is False:
        group, dot, last = name.rpartition(".")
        name = f"{group}{dot}no-{last}"
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag]
    return [flag, *map(str, value)] if isinstance(value, list) else [flag, str(value)]
