"""Files that describe a population, in TOML or JSON.

```toml
name = "town"                   # the file's name where it is left out
raters = 60                     # people who are recruited
recruiting = "convenience"      # or uniform, stratified, self-selected
between_groups = 0.3            # spread of the weights' logarithms from group to group …
within_groups = 0.1             # … and within a group
session_seconds = 1800          # how long people work before they rest
labels = 5000                   # budget in labels …
money = 120.0                   # … or in money, or both

[groups.townspeople]
share = 0.8                     # of the population, in relation to the others
reach = 0.2                     # how likely one comes, where recruiting is by convenience
cost = 0.02                     # of a label
rationality = 2.0               # any part of a rater: a number …
mistake = { mean = 0.1, spread = 0.05 }     # … one that differs from person to person …
weights = { polite = 2.0, concise = 0.5 }   # … or one for some attributes of the task

[groups.students]
share = 0.2
cost = 0.05
rationality = { mean = 4.0, spread = 1.0 }
```

Everything may be left out but one group. JSON has the same names, `groups` being an object of objects. What parts
there are tells `textenv raters list`.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_models.raters.parts import PARTS
from reward_models.raters.population import Group, Population
from textenv.errors import UsageError, unknown_name

POPULATION_KEYS = [field.name for field in dataclasses.fields(Population)]
GROUP_KEYS = ("share", "reach", "cost")
VARIED = {"mean", "spread"}
"""What a number that differs from person to person is described by."""


def load_population(path: Path) -> Population:
    """Reads a population's file.

    Raises:
        UsageError: the file is missing or no TOML or JSON, has a name that is not known, or a value that cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
        described = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(f"there is no population file {path}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:  # tomllib's and json's errors are ValueErrors.
        raise UsageError(f"{path} cannot be read as a population's {path.suffix[1:].upper()}: {error}") from error
    try:
        return population_from(described, path.stem)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def population_from(described: Any, name: str) -> Population:
    """The population that a file's content describes.

    Args:
        described: what TOML or JSON was read to.
        name: the population's, where it has no other.

    Raises:
        UsageError: a name is not known, or a value cannot be.
    """
    values = dict(_table("a population", described))
    for key in values:
        if key not in POPULATION_KEYS:
            raise unknown_name("key of a population", key, POPULATION_KEYS)
    groups = _table("groups", values.pop("groups", {}))
    if not groups:
        raise UsageError("there is no group; describe one, as in [groups.people]")
    for key, value in values.items():
        _check_type(key, value, str if key in ("name", "recruiting") else int if key in ("raters", "labels") else float)
    return Population(**{"name": name, **values}, groups=[_group(key, value) for key, value in groups.items()])


def _group(name: str, described: Any) -> Group:
    whose = f"group {name!r}"
    numbers: dict[str, float] = {}
    traits: dict[str, Any] = {}
    spread: dict[str, float] = {}
    for key, value in _table(whose, described).items():
        if key in GROUP_KEYS:
            _check_type(f"{whose}: {key}", value, float)
            numbers[key] = value
        elif key not in PARTS:
            raise UsageError(f"{whose}: {unknown_name('key of a group', key, (*GROUP_KEYS, *PARTS))}")
        elif isinstance(value, Mapping) and not PARTS[key].of_attributes:
            for inner in value:
                if inner not in VARIED:
                    raise UsageError(f"{whose}, {key}: {unknown_name('key', inner, VARIED)}")
            if "mean" not in value:
                raise UsageError(f"{whose}: {key} has no mean; give {{ mean = …, spread = … }} or a number")
            traits[key], spread[key] = value["mean"], value.get("spread", 0.0)
            _check_type(f"{whose}: spread of {key}", spread[key], float)
        else:
            traits[key] = value
    return Group(name, traits=traits, spread=spread, **numbers)


def _table(what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is {value!r}, expected names with values")
    return value


def _check_type(what: str, value: Any, kind: type) -> None:
    right = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
    if not right:
        names = {str: "a word in quotes", int: "a whole number", float: "a number"}
        raise UsageError(f"{what} is {value!r}, expected {names[kind]}")
