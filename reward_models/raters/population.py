"""Populations: groups of raters who judge by weights of their own, and how some of them are recruited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from reward_models.raters.crowd import SESSION_SECONDS, Crowd, trait_array, without_neutral
from reward_models.raters.parts import PARTS, Trait, check_traits
from textenv.errors import UsageError, unknown_name

Recruiting = Literal["uniform", "stratified", "convenience", "self-selected"]
"""uniform: whoever it is, each as likely as any other.
stratified: of each group its share of the people, as nearly as whole people allow.
convenience: as uniform, but a group's people are as likely to come as its `reach` says.
self-selected: who differs more from the task's weights is as much likelier to volunteer.
"""

VOLUNTEERS = 20
"""Of so many people, one volunteers where they select themselves."""


@dataclass(frozen=True)
class Group:
    """People who have something in common.

    Raises:
        UsageError: a number is outside its range, or a trait is not known.
    """

    name: str
    share: float = 1.0
    """How many people of the population they are, in relation to the other groups' shares."""
    reach: float = 1.0
    """How likely one of them comes when recruiting is by convenience, in relation to the other groups' reach."""
    cost: float = 0.0
    """What a label costs, in money."""
    traits: Mapping[str, Trait] = field(default_factory=dict)
    """Parameters of the parts of all its people, on average."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of a part's number among its people, who are held to the part's range."""

    def __post_init__(self) -> None:
        whose = f"group {self.name!r}"
        for name, value in (("share", self.share), ("reach", self.reach), ("cost", self.cost)):
            if not 0 <= value < np.inf:
                raise UsageError(f"{whose}: {name} is {value}, expected a number from 0 up")
        check_traits(whose, self.traits)
        for key, value in self.spread.items():
            if key not in PARTS:
                raise UsageError(f"{whose}, spread: {unknown_name('part', key, PARTS)}")
            if PARTS[key].of_attributes:
                raise UsageError(f"{whose}: spread of {key} is of no single number; of weights, give within_groups")
            if not 0 <= value < np.inf:
                raise UsageError(f"{whose}: spread of {key} is {value}, expected a number from 0 up")


@dataclass(frozen=True)
class Population:
    """Whom raters are recruited from.

    The factors f_kj by which rater k weighs attribute j (`reward_models.raters.utility.Taste`) are those of its group
    times e^(b_gj + w_kj), with b ~ N(0, between_groups²) for a group and w ~ N(0, within_groups²) for a person: a
    hierarchical model of who values what.

    Raises:
        UsageError: a number is outside its range, or nobody can be recruited.
    """

    name: str
    groups: Sequence[Group]
    raters: int = 100
    """How many people are recruited."""
    recruiting: Recruiting = "uniform"
    """The rule by which they are."""
    between_groups: float = 0.0
    """Standard deviation of the logarithm of the weights' factors between groups."""
    within_groups: float = 0.0
    """The same within a group."""
    session_seconds: float = SESSION_SECONDS
    """How long people work before they rest."""
    labels: int | None = None
    """Budget in labels; None is no bound."""
    money: float | None = None
    """Budget in money, from which the groups' costs are paid; None is no bound."""

    def __post_init__(self) -> None:
        whose = f"population {self.name!r}"
        if self.recruiting not in get_args(Recruiting):
            raise UsageError(f"{whose}: {unknown_name('recruiting', str(self.recruiting), get_args(Recruiting))}")
        checks = {
            "raters": (self.raters >= 1, "1 or more"),
            "between_groups": (0 <= self.between_groups < np.inf, "a number from 0 up"),
            "within_groups": (0 <= self.within_groups < np.inf, "a number from 0 up"),
            "session_seconds": (0 < self.session_seconds < np.inf, "a number above 0"),
            "labels": (self.labels is None or self.labels >= 1, "1 label or more"),
            "money": (self.money is None or 0 < self.money < np.inf, "a number above 0"),
        }
        for name, (valid, expected) in checks.items():
            if not valid:
                raise UsageError(f"{whose}: {name} is {getattr(self, name)}, expected {expected}")
        names = [group.name for group in self.groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"{whose}: the group {twice[0]!r} is there twice")
        if not self._odds().sum() > 0:
            raise UsageError(f"{whose}: nobody can be recruited, since every group's share or reach is 0")

    def recruit(self, attribute_names: Sequence[str], rng: np.random.Generator) -> Crowd:
        """Draws people; equal generators draw the same ones.

        Args:
            attribute_names: the task's.
            rng: draws the groups' weights, who is recruited, and what each one is like.

        Raises:
            UsageError: a group's traits name an attribute that the task lacks.
        """
        shifts = self.between_groups * rng.standard_normal((len(self.groups), len(attribute_names)))
        self_selected = self.recruiting == "self-selected"
        group = self._draw(self.raters * (VOLUNTEERS if self_selected else 1), rng)
        factors = self._factors(group, shifts, attribute_names, rng)
        if self_selected:
            chosen = volunteers(factors, self.raters, rng)
            group, factors = group[chosen], factors[chosen]
        traits = {key: self._values(key, group, attribute_names, rng) for key in self._keys()}
        return Crowd(
            names=self._names(group),
            groups=tuple(self.groups[index].name for index in group),
            traits=without_neutral({"weights": factors, **traits}),
            cost=np.array([each.cost for each in self.groups])[group],
            session_seconds=self.session_seconds,
        )

    def _odds(self) -> Float[np.ndarray, " G"]:
        by_reach = self.recruiting == "convenience"
        return np.array([group.share * (group.reach if by_reach else 1.0) for group in self.groups])

    def _draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, " R"]:
        """The groups of so many people."""
        odds = self._odds() / self._odds().sum()
        if self.recruiting == "stratified":
            return rng.permuted(np.repeat(np.arange(len(odds)), quotas(odds, count)))
        return rng.choice(len(odds), size=count, p=odds)

    def _factors(
        self,
        group: Int[np.ndarray, " R"],
        shifts: Float[np.ndarray, "G A"],
        attribute_names: Sequence[str],
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "R A"]:
        """By what each one multiplies the task's weights."""
        own = np.array([trait_array(g.name, "weights", g.traits.get("weights", {}), attribute_names)
                        for g in self.groups])  # fmt: skip
        within = self.within_groups * rng.standard_normal((len(group), len(attribute_names)))
        factors: Float[np.ndarray, "R A"] = own[group] * np.exp(shifts[group] + within)
        return factors

    def _keys(self) -> list[str]:
        """The parts that somebody has, but for the weights, in an order that no set's hashing moves."""
        named = {key for group in self.groups for key in (*group.traits, *group.spread)}
        return [key for key in PARTS if key in named and key != "weights"]

    def _values(
        self, key: str, group: Int[np.ndarray, " R"], attribute_names: Sequence[str], rng: np.random.Generator
    ) -> Float[np.ndarray, "R ..."]:
        """A part's parameter of each one."""
        part = PARTS[key]
        default: Trait = {} if part.of_attributes else part.neutral()
        mean = np.array([trait_array(g.name, key, g.traits.get(key, default), attribute_names) for g in self.groups])
        if part.of_attributes:
            return np.asarray(mean[group])
        spread = np.array([g.spread.get(key, 0.0) for g in self.groups])[group]
        values: Float[np.ndarray, " R"] = mean[group] + spread * rng.standard_normal(len(group))
        return values.clip(part.low, part.high)

    def _names(self, group: Int[np.ndarray, " R"]) -> tuple[str, ...]:
        """A group's name and a number, or the name alone where one person of it came."""
        counts = np.bincount(group, minlength=len(self.groups))
        seen = [0] * len(self.groups)
        names = []
        for index in group.tolist():
            name = self.groups[index].name
            names.append(name if counts[index] == 1 else f"{name}-{seen[index]}")
            seen[index] += 1
        return tuple(names)


def quotas(shares: Float[np.ndarray, " G"], count: int) -> Int[np.ndarray, " G"]:
    """Whole numbers of people that add up to `count`, by the method of largest remainders (Hare, Niemeyer).

    Args:
        shares: of the groups; they add up to 1.
        count: people in all.
    """
    exact = shares * count
    whole: Int[np.ndarray, " G"] = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(whole - exact, kind="stable")
    whole[by_remainder[: count - whole.sum()]] += 1
    return whole


def volunteers(factors: Float[np.ndarray, "R A"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " count"]:
    """Who volunteers, drawn without replacement in proportion to the strength of opinion.

    The strength is the length of the vector of the logarithms of a person's factors, by how much they differ from the
    task's weights; of a factor that is not above 0 its distance from 1 counts. Where nobody differs, all are alike.

    Args:
        factors: what each one multiplies the task's weights by.
        count: how many volunteer.
        rng: draws them.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        opinion = np.where(factors > 0, np.log(factors), factors - 1)
    strength = np.linalg.norm(opinion, axis=1)
    if np.count_nonzero(strength) < count:
        strength = strength + 1e-9
    return rng.choice(len(factors), size=count, replace=False, p=strength / strength.sum())
