"""The people who answer: each one's parts as numbers in arrays, so that a thousand of them cost no more than one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from reward_models.raters.part import Part
from reward_models.raters.parts import PARTS, Trait
from reward_models.raters.rater import Rater
from textenv.errors import UsageError, unknown_name

P = TypeVar("P", bound=Part)

SESSION_SECONDS = 3600.0
"""How long people work before they rest, unless it is said: our assumption."""


@dataclass(frozen=True)
class Crowd:
    """R people."""

    names: tuple[str, ...]
    """Of each one."""
    groups: tuple[str | None, ...]
    """Of whom each one is one; None where there are no groups."""
    traits: Mapping[str, Float[np.ndarray, "R ..."]]
    """The parameters of the parts that are not neutral for everybody, by their keys: a number a person, or one for each
    of the task's attributes."""
    cost: Float[np.ndarray, " R"]
    """What a label of each one costs, in money."""
    session_seconds: float = SESSION_SECONDS
    """How long they work before they rest."""

    def __len__(self) -> int:
        return len(self.names)

    def uses(self, *parts: type[Part]) -> bool:
        """Whether one of the parts is not neutral for everybody."""
        return any(part.key in self.traits for part in parts)

    def part(self, kind: type[P], rater: Int[np.ndarray, " n"]) -> P | None:
        """A part for n questions, with the values of those who answer them; None where it changes nothing.

        Args:
            kind: the part's class.
            rater: who answers each question.
        """
        return kind(self.traits[kind.key][rater]) if kind.key in self.traits else None

    @property
    def needs_prefixes(self) -> bool:
        """Whether somebody judges responses by how they begin or by the order of what they say."""
        return self.uses(PARTS["reads"], PARTS["discount"])


def crowd_of(rater: Rater, attribute_names: Sequence[str], count: int = 1) -> Crowd:
    """People who are all like one rater.

    Args:
        rater: made of parts alone.
        attribute_names: the task's, which the rater's traits may name.
        count: how many; one keeps the rater's name.

    Raises:
        UsageError: a trait names an attribute that the task lacks.
    """
    traits = {"rationality": rater.rationality, "mistake": rater.mistake, **rater.traits}
    names = (rater.name,) if count == 1 else tuple(f"{rater.name}-{number}" for number in range(count))
    values = {key: np.repeat(trait_array(rater.name, key, trait, attribute_names)[None], count, 0)
              for key, trait in traits.items()}  # fmt: skip
    return Crowd(names, (None,) * count, without_neutral(values), np.zeros(count))


def trait_array(whose: str, key: str, trait: Trait, attribute_names: Sequence[str]) -> Float[np.ndarray, "*A"]:
    """A part's parameter as an array: () for a number, (A,) for one an attribute, neutral where none is named.

    Raises:
        UsageError: an attribute is named that the task lacks.
    """
    if not isinstance(trait, Mapping):
        return np.asarray(float(trait))
    values = np.full(len(attribute_names), PARTS[key].neutral())
    for name, value in trait.items():
        if name not in attribute_names:
            raise UsageError(f"{whose}, {key}: {unknown_name('attribute of the task', name, attribute_names)}")
        values[list(attribute_names).index(name)] = value
    return values


def without_neutral(traits: Mapping[str, Float[np.ndarray, "R ..."]]) -> dict[str, Float[np.ndarray, "R ..."]]:
    """The parts that change something for somebody."""
    return {key: values for key, values in traits.items() if np.any(values != PARTS[key].neutral())}
