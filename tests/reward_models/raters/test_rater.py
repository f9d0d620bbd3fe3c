import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from reward_models.raters import RATERS, Rater, load_rater
from textenv.errors import UsageError


def probability(rater: Rater, first: float, second: float) -> float:
    return float(rater.preference_probability(torch.tensor([first]), torch.tensor([second])))


def test_probabilities_worked_out_by_hand():
    # σ(ln 3) = 3/4; twice the rationality: σ(2 ln 3) = 9/10.
    assert probability(Rater("r", rationality=1.0), math.log(3), 0.0) == pytest.approx(0.75, abs=1e-6)
    assert probability(Rater("r", rationality=2.0), 1.0, 1 - math.log(3)) == pytest.approx(0.9, abs=1e-6)
    assert probability(Rater("r", rationality=2.0), 1 - math.log(3), 1.0) == pytest.approx(0.1, abs=1e-6)
    # With ε = 0.1: 0.9·0.75 + 0.1·0.25.
    assert probability(Rater("r", 1.0, mistake=0.1), math.log(3), 0.0) == pytest.approx(0.7, abs=1e-6)
    assert probability(Rater("r", rationality=0.0), 5.0, 0.0) == 0.5


def test_perfect_raters_follow_the_order_alone():
    assert probability(Rater("r"), 1e-6, 0.0) == 1
    assert probability(Rater("r"), -100.0, 0.0) == 0
    assert probability(Rater("r"), 2.0, 2.0) == 0.5
    assert probability(Rater("r", mistake=0.1), 2.0, 1.0) == pytest.approx(0.9)
    assert probability(Rater("r", mistake=0.1), 1.0, 1.0) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 20) | st.just(math.inf), st.floats(0, 1))
def test_the_two_orders_sum_to_one(first, second, rationality, mistake):
    rater = Rater("r", rationality, mistake)
    one, other = probability(rater, first, second), probability(rater, second, first)
    assert 0 <= one <= 1
    assert one + other == pytest.approx(1)


@pytest.mark.parametrize("rater", [Rater("r", 1.5), Rater("r", 3.0, mistake=0.2), Rater("r", mistake=0.1), Rater("r")])
def test_labels_are_drawn_with_the_closed_forms_probabilities(rater):
    first, second = torch.tensor([0.0, 1.0, 0.5, -2.0]), torch.tensor([0.0, 0.3, 1.0, 1.0])
    expected = rater.preference_probability(first, second).numpy()
    draws = 2000
    counts = sum(rater.label(first, second, np.random.default_rng(seed)).double().numpy() for seed in range(draws))
    certain = (expected == 0) | (expected == 1)
    np.testing.assert_array_equal(counts[certain], draws * expected[certain])
    for count, chance in zip(counts[~certain], expected[~certain], strict=True):
        assert chisquare([count, draws - count], [draws * chance, draws * (1 - chance)]).pvalue > 1e-4


def test_labels_are_the_generators():
    first, second = torch.zeros(64), torch.zeros(64)
    draws = [RATERS["oracle"].make().label(first, second, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert set(draws[0].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", [name for name, preset in RATERS.items() if isinstance(preset.make(), Rater)])
def test_every_preset_prefers_the_better_response(name):
    rater = load_rater(name)
    assert rater.name == name
    assert 0.7 < probability(rater, 2.0, 0.0) <= 1
    assert RATERS[name].description


def test_the_crowd_is_a_population_of_several_kinds():
    crowd = load_rater("crowd").recruit(("helpful", "polite"), np.random.default_rng(0))
    assert len(crowd) == 60
    assert len(set(crowd.groups)) == 5
    # Careful ones are a half of the people and come less than the others: 0.5·0.3 of 0.65.
    assert 5 <= crowd.groups.count("careful") <= 23


def test_the_mistaken_rater_errs_one_time_in_ten():
    assert probability(load_rater("mistaken"), 9.0, 0.0) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "wrong",
    [{"mistake": 1.1}, {"mistake": -0.1}, {"mistake": math.nan}, {"rationality": -1.0}, {"rationality": math.nan}],
)
def test_values_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Rater("r", **wrong)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown rater 'oracl'.*oracle.*bradley-terry"):
        load_rater("oracl")


def test_a_rater_of_ones_own_is_a_class_or_is_made_already(tmp_path, monkeypatch):
    (tmp_path / "own_raters.py").write_text(
        "from reward_models.raters import Rater\n"
        "class Half:\n"
        "    name = 'half'\n"
        "    def preference_probability(self, first, second): return first * 0 + 0.5\n"
        "    def label(self, first, second, rng): return first * 0\n"
        "made = Rater('made', rationality=1.0)\n"
        "class Mute:\n"
        "    def label(self, first, second, rng): return first * 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_rater("own_raters:Half").name == "half"
    assert load_rater("own_raters:made").rationality == 1.0
    with pytest.raises(UsageError, match="is no rater: it lacks name, preference_probability; derive it from"):
        load_rater("own_raters:Mute")
    with pytest.raises(UsageError, match=r"the rater 'reward_models\.raters:Rater' could not be made: .*name"):
        load_rater("reward_models.raters:Rater")
    with pytest.raises(UsageError, match="'own_raters:Gone' could not be imported"):
        load_rater("own_raters:Gone")
