"""The raters that are found by name, and how any rater is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reward_models.raters.rater import Compares, Rater
from textenv import plugins
from textenv.errors import UsageError

if TYPE_CHECKING:
    from reward_models.raters.population import Population

POPULATION_FILES = (".toml", ".json")
"""Endings of the files that describe a population."""

B_PREF_EQUAL = 0.2
"""B-Pref's threshold for ties is a tenth of a segment's mean return (its ε is 0.1). Under Concierge's reference the
mean utility is 2.1, as its shipped samples tell."""

B_PREF_SKIP = 1.2
"""By the same rule nothing would ever be skipped, since returns begin at 0 and no response is that bad. We read
B-Pref's 0.1 as the share of pairs that are skipped: in 10% of Concierge's the better response is below 1.2."""


class RaterPreset(NamedTuple):
    """A rater to be had by name."""

    description: str
    """One line for people."""
    make: Callable[[], Rater | Population]
    """Makes a rater of this kind, or the people that raters are recruited from."""


RATERS: dict[str, RaterPreset] = {
    "oracle": RaterPreset(
        "always prefers the truly better response, and decides by a coin between equals",
        lambda: Rater("oracle"),
    ),
    # Where utilities are normal, two raters of rationality 2 agree on 76% of the pairs; people agreed on 73 to 77%
    # (Stiennon et al. 2020, section 4.1 and appendix C; Ouyang et al. 2022, section 3.4).
    "bradley-terry": RaterPreset(
        "prefers the better response the more surely the better it is (rationality 2), about as noisy as people",
        lambda: Rater("bradley-terry", rationality=2.0),
    ),
    "mistaken": RaterPreset(
        "prefers the better response but answers wrongly one time in ten, as B-Pref's mistake teacher",
        lambda: Rater("mistaken", mistake=0.1),
    ),
    "noisy": RaterPreset(
        "Bradley-Terry with rationality 1, as B-Pref's noisy teacher",
        lambda: Rater("noisy", rationality=1.0),
    ),
    "skip": RaterPreset(
        "skips pairs of two bad responses, else prefers the better one, as B-Pref's skip teacher",
        lambda: Rater("skip", traits={"skip": B_PREF_SKIP}),
    ),
    "equal": RaterPreset(
        "calls responses equal that are nearly so, else prefers the better one, as B-Pref's equal teacher",
        lambda: Rater("equal", traits={"tie": B_PREF_EQUAL}),
    ),
    "myopic": RaterPreset(
        "forgets a tenth of what it read with each further token, as B-Pref's myopic teacher",
        lambda: Rater("myopic", traits={"discount": 0.9}),
    ),
    "alpacafarm": RaterPreset(
        "prefers the better response but flips one label in four, as AlpacaFarm's simulated raters",
        lambda: Rater("alpacafarm", mistake=0.25),
    ),
    "crowd": RaterPreset(
        "60 people of several kinds, many of them careless or biased, and the careful ones hard to get",
        lambda: _crowd(),
    ),
}
"""The raters that are found by name; "bradley-terry" is the default of a run."""


def _crowd() -> Population:
    """A pool such as paid work brings; the kinds are those of its sources, their shares and strengths are ours.

    Of the workers that Vuurens, de Vries and Eickhoff 2011 ("How much spam can you take?") found, there are careful and
    sloppy ones, random clickers and those who always answer alike; a taste of one's own is no fault.
    """
    from reward_models.raters.population import Group, Population  # Here, since numpy is slow to import.

    return Population(
        "crowd",
        [
            Group("careful", share=0.5, reach=0.3, traits={"rationality": 2.0}),
            Group(
                "hurried",
                share=0.25,
                traits={"rationality": 1.0, "mistake": 0.15, "length_bias": 0.1, "position_bias": 1.0, "fatigue": 0.5},
                spread={"mistake": 0.05, "position_bias": 0.5},
            ),
            Group("fond of the first", share=0.1, traits={"rationality": 1.0, "position_bias": 3.0}),
            Group("clickers", share=0.1, traits={"clicker": 1.0}),
            Group("contrary", share=0.05, traits={"rationality": 2.0, "adversary": 1.0}),
        ],
        raters=60,
        recruiting="convenience",
        between_groups=0.3,
        within_groups=0.2,
    )


def load_rater(name: str) -> Compares | Population:
    """A rater by name, or a population of them.

    Args:
        name: one of `RATERS`, a population's file (`reward_models.raters.population_files`), one that an installed
            distribution brings, or "module:Class", made without arguments; a rater that is made already, as in
            "module:instance", will do too.

    Raises:
        UsageError: the name is not known, the class cannot be imported or made, or it is no rater.
    """
    if name in RATERS:
        return RATERS[name].make()
    if is_file(name):
        from reward_models.raters.population_files import load_population

        return load_population(Path(name))
    rater: Compares = plugins.made("rater", name, plugins.load("rater", name, RATERS))
    missing = [method for method in ("preference_probability", "label") if not callable(getattr(rater, method, None))]
    if not isinstance(getattr(rater, "name", None), str):
        missing.insert(0, "name")
    if missing:
        raise UsageError(
            f"{name!r} is no rater: it lacks {', '.join(missing)}; derive it from reward_models.raters.Rater, whose "
            "`perceive` is the place for a bias, or give it these itself"
        )
    return rater


def is_file(name: str) -> bool:
    """Whether a rater's name is that of a population's file."""
    return name not in RATERS and name.endswith(POPULATION_FILES)
