from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_models.comparisons import SECONDS_PER_DECISION, SECONDS_PER_TOKEN, LabelBudget, compare
from reward_models.raters import Rater
from textenv.errors import TextenvError, UsageError
from textenv.responses import Prompts, Responses

ORACLE = Rater("oracle")


def responses_of(texts: list[list[list[int]]]) -> Responses:
    """texts[i] are the responses to prompt [10 + i]."""
    prompts = Prompts.from_lists([[10 + i] for i in range(len(texts))], 0)
    return Responses.from_lists(prompts, [text for group in texts for text in group], 0)


@given(st.integers(0, 50), st.lists(st.integers(0, 20), max_size=10))
def test_a_budget_is_never_overspent_nor_held_back(total, wishes):
    budget = LabelBudget(total)
    for wish in wishes:
        before = budget.remaining
        granted = budget.take(wish)
        assert granted == min(wish, before)
        assert budget.spent + budget.remaining == total
        assert 0 <= budget.spent <= total


def test_a_negative_budget_is_refused():
    with pytest.raises(UsageError, match="0 or more"):
        LabelBudget(-1)
    with pytest.raises(ValueError, match="cannot take"):
        LabelBudget(3).take(-1)


GROUPS = st.integers(2, 4).flatmap(
    lambda k: st.lists(
        st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=2), min_size=k, max_size=k), min_size=1, max_size=5
    )
)


@settings(deadline=None)
@given(GROUPS, st.integers(0, 12), st.integers(0, 99))
def test_pairs_are_different_asked_once_and_paid_from_the_budget(texts, total, seed):
    responses = responses_of(texts)
    utility = torch.arange(len(responses)).float()
    pairs = [sum(a != b for i, a in enumerate(group) for b in group[:i]) for group in texts]
    budget = LabelBudget(total)
    if sum(pairs) == 0:
        with pytest.raises(TextenvError, match="nothing to compare"):
            compare(responses, utility, ORACLE, budget, np.random.default_rng(seed))
        assert budget.spent == 0
        return
    preferences = compare(responses, utility, ORACLE, budget, np.random.default_rng(seed))
    assert len(preferences) == budget.spent == min(total, sum(pairs))
    assert all(a != b for a, b in zip(preferences.first.to_lists(), preferences.second.to_lists(), strict=True))
    # Utility i belongs to row i alone: it tells which rows were shown, and that they belong to the prompt.
    rows = [tuple(sorted(map(int, pair))) for pair in preferences.utility.tolist()]
    assert len(set(rows)) == len(rows)
    for (low, high), prompt in zip(rows, preferences.prompts.to_lists(), strict=True):
        assert [10 + low // responses.group_size] == prompt == [10 + high // responses.group_size]
    # Evenly: no prompt is asked again while another still has a first pair left, and so on.
    asked = Counter(low // responses.group_size for low, _ in rows)
    least = min((asked[i] for i, count in enumerate(pairs) if asked[i] < count), default=None)
    assert least is None or max(asked.values(), default=0) <= least + 1


def test_labels_and_texts_stay_together():
    responses = responses_of([[[1], [2]], [[3, 3], [4]]])
    preferences = compare(
        responses, torch.tensor([0.0, 1.0, 5.0, -5.0]), ORACLE, LabelBudget(9), np.random.default_rng(0)
    )
    sides = zip(preferences.first.to_lists(), preferences.second.to_lists(), preferences.label.tolist(), strict=True)
    better = sorted(first if label == 1 else second for first, second, label in sides)
    assert better == [[2], [3, 3]]
    assert list(preferences.rater) == ["oracle", "oracle"]
    assert preferences.probability.tolist() == preferences.label.tolist()


def test_position_is_random():
    responses = responses_of([[[1], [2]]] * 400)
    preferences = compare(responses, torch.tensor([0.0, 1.0] * 400), ORACLE, LabelBudget(400), np.random.default_rng(0))
    assert 160 < float(preferences.label.sum()) < 240  # 4 standard deviations of a fair coin


def test_session_time_adds_up_reading_and_deciding():
    responses = responses_of([[[1, 2, 3], [2]]] * 2)
    preferences = compare(responses, torch.zeros(4), ORACLE, LabelBudget(2), np.random.default_rng(0))
    one = SECONDS_PER_DECISION + 5 * SECONDS_PER_TOKEN  # prompt 1, responses 3 and 1
    assert preferences.session_time.tolist() == pytest.approx([one, 2 * one])


def test_single_responses_cannot_be_compared():
    with pytest.raises(UsageError, match="at least 2 responses"):
        compare(responses_of([[[1]]]), torch.zeros(1), ORACLE, LabelBudget(1), np.random.default_rng(0))


def test_equal_generators_ask_equal_questions():
    responses = responses_of([[[i], [i + 1], [i + 2]] for i in range(1, 20)])
    utility = torch.zeros(len(responses))
    runs = [compare(responses, utility, ORACLE, LabelBudget(30), np.random.default_rng(seed)) for seed in (0, 0, 1)]
    texts = [(run.first.to_lists(), run.label.tolist()) for run in runs]
    assert texts[0] == texts[1] != texts[2]


class Contrary:
    """A rater that inherits nothing: the worse response always."""

    name = "contrary"

    def preference_probability(self, first, second):
        return (first < second).double()

    def label(self, first, second, rng):
        return self.preference_probability(first, second)


class Hasty(Rater):
    """Takes what is short for what is good, whatever it is."""

    def perceive(self, responses, utility):
        return -responses.lengths.double()


FOUR = responses_of([[[1], [1, 2]], [[1, 2, 2], [2]]])
UTILITY = torch.tensor([0.0, 1.0, 3.0, 2.0])


def test_a_rater_of_ones_own_needs_two_methods_and_a_name():
    answers = compare(FOUR, UTILITY, Contrary(), LabelBudget(9), np.random.default_rng(0))
    first, second = answers.utility.unbind(dim=1)
    assert torch.equal(answers.label, (first < second).float())
    assert torch.equal(answers.probability, answers.label)
    assert answers.rater == ["contrary"] * 2


def test_a_rater_decides_by_what_it_perceives_and_the_truth_is_kept():
    answers = compare(FOUR, UTILITY, Hasty("hasty"), LabelBudget(9), np.random.default_rng(0))
    assert torch.equal(answers.label, (answers.first.lengths < answers.second.lengths).float())
    assert set(answers.utility.flatten().tolist()) == set(UTILITY.tolist())


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("label", lambda *_: torch.zeros(3), "label of the rater 'contrary' must return 2 numbers from 0 to 1; it ret"),
        ("label", lambda *_: torch.tensor([0.0, 2.0]), r"numbers from 0 to 1; it returned tensor\(\[0., 2.\]\)"),
        ("label", lambda *_: None, "label .* must return 2 numbers from 0 to 1; it returned None"),
        ("label", lambda: None, "the rater 'contrary' failed: TypeError: .*; reward_models.raters.Compares tells"),
        (
            "preference_probability",
            lambda *_: [0.5, 1.5],
            r"must return 2 numbers from 0 to 1; it returned \[0.5, 1.5\]",
        ),
        ("perceive", lambda *_: [0.0, 1.0], "perceive of the rater 'contrary' must return 4 finite numbers"),
        ("perceive", lambda *_: [0.0, 1.0, 2.0, float("inf")], "must return 4 finite numbers"),
        ("label", lambda *_: 1 / 0, r"ZeroDivisionError: .* \(.*test_comparisons.py, line \d+\)"),
    ],
)
def test_what_is_no_answer_is_told_with_the_raters_name(method, answer, message):
    rater = Contrary()
    setattr(rater, method, answer)
    with pytest.raises(UsageError, match=message):
        compare(FOUR, UTILITY, rater, LabelBudget(9), np.random.default_rng(0))
