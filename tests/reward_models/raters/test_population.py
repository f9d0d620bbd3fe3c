"""Populations: who is recruited, what they are like, and the files that describe them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, kstest

from reward_models.raters import load_rater
from reward_models.raters import population_files as files
from reward_models.raters.population import Group, Population, Recruiting, quotas, volunteers
from textenv.errors import UsageError

NAMES = ("helpful", "polite")


def town(**changed: Any) -> Population:
    groups = (
        Group("many", share=0.8, reach=0.25, traits={"rationality": 2.0, "weights": {"polite": 3.0}}),
        Group("few", share=0.2, cost=0.5, traits={"mistake": 0.1}, spread={"mistake": 0.5}),
    )
    return Population("town", **{"groups": groups, "raters": 2000, **changed})


def count_of(population: Population, group: str, seed: int = 0) -> int:
    return population.recruit(NAMES, np.random.default_rng(seed)).groups.count(group)


def test_recruiting_by_each_rule() -> None:
    assert binomtest(count_of(town(), "few"), 2000, 0.2).pvalue > 1e-4
    assert count_of(town(recruiting="stratified"), "few") == 400
    # 0.8·0.25 against 0.2·1: as many of either.
    assert binomtest(count_of(town(recruiting="convenience"), "few"), 2000, 0.5).pvalue > 1e-4
    # Without differences of opinion in "few", of whom nobody weighs anything otherwise, the others volunteer.
    assert count_of(town(recruiting="self-selected"), "few") == 0


def test_whole_people_by_largest_remainders() -> None:
    assert quotas(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4
    assert quotas(np.array([1.0]), 3).tolist() == [3]


def test_who_has_an_opinion_volunteers() -> None:
    # Lengths of the logarithms: 0, ln 2 and 2·ln 2: two of three come, and never the first.
    factors = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    rng = np.random.default_rng(0)
    first = [int(volunteers(factors, 1, rng)[0]) for _ in range(3000)]
    assert binomtest(first.count(2), 3000, 2 / 3).pvalue > 1e-4
    assert set(first) == {1, 2}
    assert sorted(volunteers(factors, 3, rng).tolist()) == [0, 1, 2]


def test_what_people_are_like() -> None:
    crowd = town(recruiting="stratified").recruit(NAMES, np.random.default_rng(0))
    many = np.array([group == "many" for group in crowd.groups])
    assert (crowd.traits["rationality"][many] == 2).all()
    assert np.isinf(crowd.traits["rationality"][~many]).all()
    assert set(map(tuple, crowd.traits["weights"][many])) == {(1.0, 3.0)}
    mistakes = crowd.traits["mistake"][~many]
    # A normal of mean 0.1 and deviation 0.5 held to [0, 1]: below 0 with Φ(−0.2) = 0.42, above 1 with Φ(−1.8) = 0.036.
    assert binomtest(int((mistakes == 0).sum()), len(mistakes), 0.4207).pvalue > 1e-4
    assert binomtest(int((mistakes == 1).sum()), len(mistakes), 0.0359).pvalue > 1e-4
    assert (crowd.traits["mistake"][many] == 0).all()
    assert set(crowd.cost[~many]) == {0.5}
    assert set(crowd.traits) == {"rationality", "weights", "mistake"}
    assert crowd.names.index("few-0") == crowd.groups.index("few")
    assert len(set(crowd.names)) == 2000


def test_weights_spread_between_groups_and_within_them() -> None:
    plain = [Group(f"g{number}") for number in range(400)]
    population = Population("p", plain, raters=4000, between_groups=0.5, within_groups=0.2, recruiting="stratified")
    factors = population.recruit(NAMES, np.random.default_rng(0))
    logs = np.log(factors.traits["weights"])
    assert kstest(logs[:, 0] / np.sqrt(0.5**2 + 0.2**2), "norm").pvalue > 1e-4
    groups = np.array(factors.groups)
    within = np.concatenate([logs[groups == name] - logs[groups == name].mean(axis=0) for name in set(groups)])
    # Ten people a group: the deviation from their mean has 9/10 of the variance.
    assert within.std() == pytest.approx(0.2 * np.sqrt(0.9), rel=0.03)


def test_one_seed_gives_the_same_people() -> None:
    for rule in ("uniform", "stratified", "convenience", "self-selected"):
        population = town(recruiting=rule, raters=50, within_groups=0.3)
        one, same, other = (population.recruit(NAMES, np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert one.names == same.names
        assert all((one.traits[key] == same.traits[key]).all() for key in one.traits)
        assert (one.traits["weights"] != other.traits["weights"]).any()


TOML = """
raters = 60
recruiting = "convenience"
between_groups = 0.3
labels = 5000
money = 120.0
[groups.townspeople]
share = 0.8
rationality = 2
mistake = { mean = 0.1, spread = 0.05 }
weights = { polite = 2.0 }
[groups.students]
cost = 0.05
"""


def test_a_file_describes_a_population(tmp_path: Path) -> None:
    (tmp_path / "town.toml").write_text(TOML)
    population = load_rater(str(tmp_path / "town.toml"))
    expected = Population(
        "town",
        [
            Group("townspeople", 0.8, traits={"rationality": 2, "mistake": 0.1, "weights": {"polite": 2.0}},
                  spread={"mistake": 0.05}),
            Group("students", cost=0.05),
        ],
        raters=60, recruiting="convenience", between_groups=0.3, labels=5000, money=120.0,
    )  # fmt: skip
    assert population == expected
    described = dataclasses.asdict(expected)
    groups = {
        "townspeople": {
            "share": 0.8,
            "rationality": 2,
            "mistake": {"mean": 0.1, "spread": 0.05},
            "weights": {"polite": 2},
        },
        "students": {"cost": 0.05},
    }
    (tmp_path / "other.json").write_text(json.dumps({**described, "groups": groups}))
    assert load_rater(str(tmp_path / "other.json")) == expected


def test_the_documented_example_is_one(tmp_path: Path) -> None:
    documented = (files.__doc__ or "").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "town.toml").write_text(documented)
    population = files.load_population(tmp_path / "town.toml")
    assert [group.name for group in population.groups] == ["townspeople", "students"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rater = 3\n[groups.a]", r"unknown key of a population 'rater'\. Did you mean 'raters'\?"),
        ("raters = 3", r"there is no group; describe one, as in \[groups\.people\]"),
        ("raters = 0\n[groups.a]", "raters is 0, expected 1 or more"),
        ("raters = 2.5\n[groups.a]", r"raters is 2\.5, expected a whole number"),
        ("labels = 0\n[groups.a]", "labels is 0, expected 1 label or more"),
        ("money = 0\n[groups.a]", "money is 0, expected a number above 0"),
        (
            "recruiting = 'random'\n[groups.a]",
            r"unknown recruiting 'random'\. .*convenience, self-selected, stratified",
        ),
        ("within_groups = -1\n[groups.a]", "within_groups is -1, expected a number from 0 up"),
        ("session_seconds = 'long'\n[groups.a]", "session_seconds is 'long', expected a number"),
        ("[groups.a]\nshare = -1", "group 'a': share is -1, expected a number from 0 up"),
        ("[groups.a]\nshare = 0", "nobody can be recruited"),
        ("[groups.a]\nmistakes = 0.1", r"group 'a': unknown key of a group 'mistakes'\. Did you mean 'mistake'\?"),
        ("[groups.a]\nmistake = 1.1", r"group 'a': mistake is 1\.1, expected a number in \[0, 1\]"),
        (
            "[groups.a]\nmistake = { mean = 0.1, sd = 1 }",
            r"group 'a', mistake: unknown key 'sd'\. Did you mean",
        ),
        ("[groups.a]\nmistake = { spread = 1 }", "group 'a': mistake has no mean"),
        ("[groups.a]\nmistake = { mean = 0.1, spread = -1 }", "spread of mistake is -1, expected a number from 0 up"),
        ("[groups.a]\nweights = 2", "weights is 2, expected attributes with numbers"),
        ("groups = 3", "groups is 3, expected names with values"),
        ("[groups.a\n", "cannot be read as a population's TOML: "),
    ],
)
def test_what_a_file_cannot_say(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_rater(str(tmp_path / "wrong.toml"))
    assert str(error.value).startswith(str(tmp_path / "wrong.toml"))


def test_other_populations_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no population file .*gone\.json"):
        load_rater(str(tmp_path / "gone.json"))
    with pytest.raises(UsageError, match="the group 'a' is there twice"):
        Population("p", [Group("a"), Group("a")])
    with pytest.raises(UsageError, match="spread of weights is of no single number; of weights, give within_groups"):
        Group("a", spread={"weights": 1.0})
    rule: Recruiting = "convenience"
    with pytest.raises(UsageError, match="nobody can be recruited, since every group's share or reach is 0"):
        Population("p", [Group("a", reach=0.0)], recruiting=rule)
    with pytest.raises(UsageError, match="unknown attribute of the task 'kind'"):
        Population("p", [Group("a", traits={"weights": {"kind": 1.0}})]).recruit(NAMES, np.random.default_rng(0))
