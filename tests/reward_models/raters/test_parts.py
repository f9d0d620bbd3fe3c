"""Each part of a rater: its formula by hand, and that simulated answers follow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from reward_models.raters import RATERS, Rater
from reward_models.raters.crowd import Crowd, crowd_of
from reward_models.raters.judge import Questions, Verdicts, judge
from reward_models.raters.material import Material
from reward_models.raters.parts import PARTS, Trait, check_traits
from textenv.errors import UsageError

NAMES = ("helpful", "polite", "non_sycophantic")
LN3, LN9 = math.log(3), math.log(9)
HOUR = 3600.0


def material(attributes: list[list[float]], **changed: Any) -> Material:
    """Responses whose utility is 2·helpful + polite."""
    count = len(attributes)
    values: dict[str, Any] = {
        "attributes": np.array(attributes, dtype=float),
        "weights": np.array([2.0, 1.0, 0.0]),
        "attribute_names": NAMES,
        "lengths": np.full(count, 2),
        "prompt_lengths": np.full(count, 3),
        "sources": np.zeros(count, dtype=np.int64),
    }
    return Material(**values | changed)


def asked(times: int = 1, *, hours: float = 0.0, agrees: int = 0, swapped: bool = False) -> Questions:
    """The first two responses, shown to the first person again and again."""
    zeros = np.zeros(times, dtype=np.int64)
    seconds = np.full(times, hours * HOUR)
    return Questions(
        np.tile([[1, 0] if swapped else [0, 1]], (times, 1)), zeros, zeros, seconds, seconds, zeros + agrees
    )


def person(traits: Mapping[str, Trait]) -> Crowd:
    own = {key: traits[key] for key in ("rationality", "mistake") if key in traits}
    return crowd_of(Rater("r", **own, traits={k: v for k, v in traits.items() if k not in own}), NAMES)  # type: ignore[arg-type]


def chance(traits: Mapping[str, Trait], about: Material, **how: Any) -> float:
    return float(judge(person(traits), about, asked(**how), np.random.default_rng(0)).probability[0])


# u = 2·helpful + polite: 2.5 and 1.5, a difference of 1, unless it is said.
PAIR = material([[1.0, 0.5, 1.0], [0.5, 0.5, 0.0]])
EQUAL = material([[0.5, 0.5, 1.0], [0.5, 0.5, 0.0]], lengths=np.array([7, 2]))
TOKENS = material(
    # The first is good at once, the second at its last token only: u(y≤t) is 1, 1 and 0, 2.
    [[0.5, 0.0, 1.0], [1.0, 0.0, 1.0]],
    prefixes=np.array([[[0, 0, 1], [0.5, 0, 1], [0.5, 0, 1]], [[0, 0, 1], [0, 0, 1], [1, 0, 1]]], dtype=float),
)

BY_HAND = {
    "rationality": ({"rationality": LN3}, PAIR, {}, 3 / 4),
    "rationality, oracle": ({}, PAIR, {}, 1.0),
    "rationality, oracle between equals": ({}, EQUAL, {}, 0.5),
    "mistake": ({"rationality": LN3, "mistake": 0.2}, PAIR, {}, 0.8 * 0.75 + 0.2 * 0.25),
    "clicker": ({"rationality": LN3, "clicker": 0.4}, PAIR, {}, 0.6 * 0.75 + 0.2),
    "tie": ({"tie": 1.1}, PAIR, {}, 0.5),
    "tie, too different": ({"tie": 1.0}, PAIR, {}, 1.0),
    "skip": ({"skip": 2.5}, PAIR, {}, math.nan),
    "skip, one is good enough": ({"skip": 2.4}, PAIR, {}, 1.0),
    "weights": ({"rationality": LN3, "weights": {"helpful": 2.0}}, PAIR, {}, 9 / 10),
    "adversary": ({"rationality": LN3, "adversary": 1.0}, PAIR, {}, 1 / 4),
    "adversary, indifferent": ({"rationality": LN3, "adversary": 0.5}, PAIR, {}, 1 / 2),
    # Five tokens more at ln 3 / 5 each.
    "length_bias": ({"rationality": 1.0, "length_bias": LN3 / 5}, EQUAL, {}, 3 / 4),
    "position_bias": ({"rationality": 1.0, "position_bias": LN3}, EQUAL, {}, 3 / 4),
    "position_bias, swapped": ({"rationality": LN3, "position_bias": 1.0}, PAIR, {"swapped": True}, 1 / 2),
    "confirmation": ({"rationality": 1.0, "confirmation": LN3}, EQUAL, {}, 3 / 4),
    "confirmation, the other": ({"rationality": 1.0, "confirmation": LN3}, EQUAL, {"agrees": 1}, 1 / 4),
    "sycophancy": ({"rationality": 1.0, "sycophancy": LN3}, EQUAL, {}, 1 / 4),
    # Without helpful both are the same.
    "blindness": ({"rationality": 1.0, "blindness": {"helpful": 1.0}}, PAIR, {}, 1 / 2),
    "blindness, by half": ({"rationality": LN9, "blindness": {"helpful": 0.5}}, PAIR, {}, 3 / 4),
    # non_sycophantic, which has no weight, colours a half of what has 3 in all: 0.5·1 + 0.5·3.
    "halo": ({"rationality": LN3 / 2, "halo": {"non_sycophantic": 0.5}}, PAIR, {}, 3 / 4),
    "reads": ({"rationality": LN3, "reads": 1.0}, TOKENS, {}, 3 / 4),
    "reads to the end": ({"rationality": LN3, "reads": 2.0}, TOKENS, {}, 1 / 4),
    # 0.5·1 against 2, a difference of −1.5.
    "discount": ({"rationality": LN9 / 3, "discount": 0.5}, TOKENS, {}, 1 / 4),
    # One token read: it is the last one, and nothing of it is forgotten.
    "discount of what is read": ({"rationality": LN3, "discount": 0.5, "reads": 1.0}, TOKENS, {}, 3 / 4),
    "fatigue": ({"rationality": LN3, "fatigue": math.log(2) / 2}, PAIR, {"hours": 2.0}, 0.5 * 0.75 + 0.25),
    "fatigue, rested": ({"rationality": LN3, "fatigue": 1.0}, PAIR, {}, 3 / 4),
    "drift": ({"rationality": LN3, "drift": {"helpful": math.log(2) / 3}}, PAIR, {"hours": 3.0}, 9 / 10),
}
REMEMBERING = {"expectation", "recency"}
"""Their probabilities depend on the answers before; they have tests of their own."""


@pytest.mark.parametrize("case", BY_HAND)
def test_the_probability_is_that_worked_out_by_hand(case: str) -> None:
    traits, about, how, expected = BY_HAND[case]
    assert chance(traits, about, **how) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("case", BY_HAND)
def test_simulated_answers_follow_the_probability(case: str) -> None:
    traits, about, how, expected = BY_HAND[case]
    n = 4000
    label = judge(person(traits), about, asked(n, **how), np.random.default_rng(1)).label
    if traits.get("tie", 0) == 1.1 or math.isnan(expected):
        np.testing.assert_array_equal(label, expected)
    elif expected in (0.0, 1.0):
        assert (label == expected).all()
    else:
        counts = [np.count_nonzero(label == 1), np.count_nonzero(label == 0)]
        assert sum(counts) == n
        assert chisquare(counts, [n * expected, n * (1 - expected)]).pvalue > 1e-4


def test_every_part_is_worked_out_by_hand() -> None:
    assert {case.partition(",")[0].split()[0] for case in BY_HAND} | REMEMBERING == set(PARTS)


@pytest.mark.parametrize("key", PARTS)
def test_the_neutral_value_changes_nothing(key: str) -> None:
    part = PARTS[key]
    trait: Trait = {"helpful": part.neutral()} if part.of_attributes else part.neutral()
    assert list(person({"rationality": LN3, key: trait}).traits) == (["rationality"] if key != "rationality" else [])
    if key != "rationality":
        assert chance({"rationality": LN3, key: trait}, PAIR) == pytest.approx(0.75)


def remembered(traits: Mapping[str, Trait], sources: list[int], rounds: int, seed: int = 0) -> Verdicts:
    about = material([[0.5, 0.5, 1.0]] * 2, sources=np.array(sources), source_names=("old", "new"))
    return judge(person({"rationality": 1.0, **traits}), about, asked(rounds), np.random.default_rng(seed))


def test_who_won_so_far_is_favoured() -> None:
    strength = 2.0
    verdicts = remembered({"expectation": strength}, [0, 1], 50)
    wins = np.concatenate([[0], np.cumsum(verdicts.label)[:-1]])  # Of the first's source, before each question.
    before = np.arange(50)
    # 2·(w + 1)/(n + 2) − 1 of the one, less that of the other, which has the n − w other wins.
    difference = strength * 2 * (2 * wins - before) / (before + 2)
    np.testing.assert_allclose(verdicts.probability, 1 / (1 + np.exp(-difference)), rtol=1e-5)
    assert verdicts.probability[0] == 0.5
    # Two responses of one source tell nothing about it.
    np.testing.assert_array_equal(remembered({"expectation": strength}, [1, 1], 50).probability, 0.5)


def test_the_last_answer_is_repeated_within_a_session() -> None:
    verdicts = remembered({"recency": LN3}, [0, 0], 4000)
    last = verdicts.label[:-1]
    np.testing.assert_allclose(verdicts.probability[1:], np.where(last == 1, 0.75, 0.25), rtol=1e-5)
    repeated = int((last == verdicts.label[1:]).sum())
    assert chisquare([repeated, 3999 - repeated], [3999 * 0.75, 3999 * 0.25]).pvalue > 1e-4
    questions = asked(2)
    later = Questions(questions.shown, questions.rater, np.array([0, 1]), *(np.zeros(2),) * 2, questions.agrees)
    about = material([[0.5, 0.5, 1.0]] * 2)
    rested = judge(person({"rationality": 1.0, "recency": LN3}), about, later, np.random.default_rng(0))
    np.testing.assert_array_equal(rested.probability, 0.5)


def test_people_who_remember_are_judged_in_turns_as_alone() -> None:
    about = material([[0.5, 0.5, 1.0]] * 2)
    alone = person({"rationality": 1.0, "recency": LN3})
    three = Crowd(("a", "b", "c"), (None,) * 3, {k: np.repeat(v, 3, 0) for k, v in alone.traits.items()}, np.zeros(3))
    rater = np.array([0, 1, 1, 2, 0, 1, 2, 2, 2])
    questions = Questions(np.tile([[0, 1]], (9, 1)), rater, *(np.zeros(9, dtype=np.int64),) * 4)
    verdicts = judge(three, about, questions, np.random.default_rng(3))
    for each in range(3):
        label, probability = verdicts.label[rater == each], verdicts.probability[rater == each]
        expected = np.where(label[:-1] == 1, 0.75, 0.25)
        np.testing.assert_allclose(probability, [0.5, *expected], rtol=1e-5)


def test_a_rater_of_parts_answers_as_the_plain_one() -> None:
    import torch

    rater = Rater("r", rationality=1.7, mistake=0.1)
    rng = np.random.default_rng(0)
    about = material(rng.random((400, 3)).tolist())
    shown = np.arange(400).reshape(200, 2)
    zeros = np.zeros(200, dtype=np.int64)
    verdicts = judge(crowd_of(rater, NAMES), about, Questions(shown, *(zeros,) * 5), np.random.default_rng(5))
    first, second = torch.from_numpy(about.utility[shown]).unbind(dim=1)
    assert torch.equal(rater.label(first, second, np.random.default_rng(5)), torch.from_numpy(verdicts.label))
    expected = rater.preference_probability(first, second).numpy()
    np.testing.assert_allclose(verdicts.probability, expected, rtol=1e-6)


def test_b_prefs_order_skip_then_tie_on_the_truth_then_what_is_remembered() -> None:
    # The truth is 1 against 2; a myopic reader with γ = 0 sees 0 against 2.
    myopic = {"discount": 0.0}
    assert chance({**myopic, "tie": 1.5}, TOKENS) == 0.5
    assert chance({**myopic, "tie": 1.5, "mistake": 1.0}, TOKENS) == 0.5
    assert chance({**myopic, "mistake": 1.0}, TOKENS) == 1.0
    assert math.isnan(chance({**myopic, "tie": 1.5, "skip": 2.0}, TOKENS))


def test_presets_have_the_published_values() -> None:
    values = {name: preset.make() for name, preset in RATERS.items()}
    assert values["noisy"].rationality == 1.0
    assert values["mistaken"].mistake == 0.1
    assert values["alpacafarm"].mistake == 0.25
    assert values["myopic"].traits == {"discount": 0.9}
    assert chance(values["equal"].traits, material([[0.5, 0.3, 0], [0.5, 0.2, 0]])) == 0.5
    assert math.isnan(chance(values["skip"].traits, material([[0.5, 0.1, 0], [0.5, 0.2, 0]])))


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"mistakes": 0.1}, r"rater 'r': unknown part 'mistakes'\. Did you mean 'mistake'\?"),
        ({"clicker": 1.5}, r"clicker is 1\.5, expected a number in \[0, 1\]"),
        ({"clicker": True}, r"clicker is True, expected a number in \[0, 1\]"),
        ({"length_bias": math.inf}, "length_bias is inf, expected a finite number"),
        ({"reads": -1}, "reads is -1, expected a number from 0 up, or infinity"),
        ({"fatigue": math.inf}, "fatigue is inf, expected a number from 0 up$"),
        ({"weights": 2.0}, r"weights is 2\.0, expected attributes with numbers, as in weights = "),
        ({"tie": {"polite": 1}}, "tie is {'polite': 1}, expected a number"),
        ({"blindness": {"polite": 2}}, r"blindness\.polite is 2, expected a number in \[0, 1\]"),
        ({"halo": {"polite": 0.6, "helpful": 0.6}}, r"halo adds up to 1\.2, expected 1 at most"),
        ({"mistake": 0.1}, "mistake is an argument of its own"),
    ],
)
def test_traits_that_cannot_be_are_refused(traits: dict[str, Trait], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rater("r", traits=traits)


def test_attributes_are_those_of_the_task() -> None:
    check_traits("r", {"weights": {"kindness": 1.0}})
    with pytest.raises(UsageError, match=r"r, weights: unknown attribute of the task 'helpfull'\. Did you mean"):
        person({"weights": {"helpfull": 1.0}})
    with pytest.raises(UsageError, match="the task has no attribute non_sycophantic; it has polite"):
        judge(
            crowd_of(Rater("r", traits={"sycophancy": 1.0}), ("polite",)),
            Material(np.ones((2, 1)), np.ones(1), ("polite",), *(np.ones(2, dtype=np.int64),) * 2, np.zeros(2, int)),
            asked(),
            np.random.default_rng(0),
        )


def test_methods_of_ones_own_and_traits_do_not_go_together() -> None:
    class Own(Rater):
        def perceive(self, responses: Any, utility: Any) -> Any:
            return utility

    assert not Own("own").only_parts
    with pytest.raises(UsageError, match="give it traits or methods of its own, not both"):
        Own("own", traits={"tie": 1.0})
