"""Every part of a rater by its key, and the traits that are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reward_models.raters.decision import Mistake, RandomClicker, Rationality, Skip, Tie
from reward_models.raters.drift import Fatigue, Recency, WeightDrift
from reward_models.raters.part import Part
from reward_models.raters.perception import Blindness, Halo, LimitedReading, Myopia
from reward_models.raters.utility import (
    Adversary,
    ConfirmationBias,
    Expectation,
    LengthBias,
    PositionBias,
    Sycophancy,
    Taste,
)
from textenv.errors import UsageError, unknown_name

PARTS: dict[str, type[Part]] = {
    part.key: part
    for part in (
        *(LimitedReading, Myopia, Blindness, Halo),
        *(Taste, Adversary, LengthBias, PositionBias, ConfirmationBias, Expectation, Sycophancy),
        *(Skip, Tie, Rationality, Mistake, RandomClicker),
        *(Fatigue, Recency, WeightDrift),
    )
}
"""In the order perception, utility, decision, drift."""

Trait = float | Mapping[str, float]
"""A part's parameter: a number, or one for each of some attributes, by their names."""


def check_traits(whose: str, traits: Mapping[str, Trait]) -> None:
    """Refuses traits that no rater can have.

    Args:
        whose: for messages, as in "rater 'ann'".
        traits: parameters by the keys of their parts.

    Raises:
        UsageError: an unknown part, a value outside its range, or a number where attributes are to be named.
    """
    for key, trait in traits.items():
        if key not in PARTS:
            raise UsageError(f"{whose}: {unknown_name('part', key, PARTS)}")
        part = PARTS[key]
        if part.of_attributes != isinstance(trait, Mapping):
            expected = (
                f"attributes with numbers, as in {key} = {{ polite = 0.5 }}" if part.of_attributes else "a number"
            )
            raise UsageError(f"{whose}: {key} is {trait!r}, expected {expected}")
        values = (
            {f"{key}.{name}": value for name, value in trait.items()} if isinstance(trait, Mapping) else {key: trait}
        )
        for name, value in values.items():
            check_value(whose, name, value, part)
        if part is Halo and sum(values.values()) > 1:
            raise UsageError(f"{whose}: halo adds up to {sum(values.values()):g}, expected 1 at most")


def check_value(whose: str, name: str, value: object, part: type[Part]) -> None:
    """Refuses a number that is outside a part's range.

    Raises:
        UsageError: it is, or it is no number.
    """
    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not (part.low <= number <= part.high and (math.isfinite(number) or number == part.neutral())):
        raise UsageError(f"{whose}: {name} is {value!r}, expected {range_of(part)}")


def range_of(part: type[Part]) -> str:
    """The values that a part may have, in words."""
    if math.isinf(part.low):
        return "a finite number"
    if part.high == 1:
        return "a number in [0, 1]"
    return "a number from 0 up" + (", or infinity" if part.neutral() == math.inf else "")
