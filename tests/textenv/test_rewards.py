"""Reward functions, and what is refused of them."""

import pytest
import torch

from textenv.errors import TextenvError, UsageError
from textenv.responses import Prompts, Responses
from textenv.rewards import GoldReward, PythonReward, WeightedSum, score_responses
from textenv.tasks.exact import Exact, utility_deviation


@pytest.fixture(scope="module")
def task():
    return Exact()


@pytest.fixture
def responses():
    """Two responses to each of two prompts: "c" gets "c" and nothing, "a b" gets "b b" and "a"."""
    prompts = Prompts.from_lists([[4], [2, 3]], pad_id=0)
    return Responses.from_lists(prompts, [[4, 1], [1], [3, 3, 1], [2, 1]], pad_id=0)


def test_gold_is_the_utility(task, responses):
    reward = GoldReward(task)
    assert reward.name == "gold"
    # answer 1, ½, 1, ⅓; frame 0, 0, 1, 0; all end.
    score = torch.tensor([0.7, 0.45, 1.0, 0.5 / 3 + 0.2])
    torch.testing.assert_close(reward(responses), score / utility_deviation())


def test_gold_needs_a_task_that_knows_the_truth():
    class Unknown:
        name = "text"
        attribute_names = ()

    with pytest.raises(UsageError, match="'text' has no known truth"):
        GoldReward(Unknown())


def test_a_python_function_sees_texts_without_special_tokens(task, responses):
    seen = []

    def letters(prompts, answers):
        seen.extend(zip(prompts, answers, strict=True))
        return [len(answer.split()) for answer in answers]

    reward = PythonReward(letters, task.tokenizer)
    assert reward.name == "letters"
    assert reward(responses).tolist() == [1.0, 0.0, 2.0, 1.0]
    assert seen == [("c", "c"), ("c", ""), ("a b", "b b"), ("a b", "a")]


def test_a_weighted_sum(task, responses):
    one = PythonReward(lambda prompts, answers: [1.0] * len(answers), task.tokenizer)
    both = WeightedSum([(2.0, GoldReward(task)), (-0.5, one)])
    assert both.name == "2*gold + -0.5*<lambda>"
    torch.testing.assert_close(both(responses), 2 * GoldReward(task)(responses) - 0.5)
    with pytest.raises(UsageError, match="at least one"):
        WeightedSum([])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"shape \(4,\).*returned \(1,\)"),
        ([1.0, 2.0, float("nan"), 0.0], r"returned nan for response 2 \[3, 3, 1\]; every score must be finite"),
        (["good"] * 4, "must return a list of numbers"),
        (None, "must return a list of numbers"),
    ],
)
def test_what_a_python_function_must_not_return(task, responses, values, message):
    with pytest.raises(TextenvError, match=message):
        PythonReward(lambda prompts, answers: values, task.tokenizer)(responses)


def test_the_response_that_fails_is_named(responses, task):
    def fails_on_a(prompts, answers):
        return [1 / (answer != "a") for answer in answers]

    with pytest.raises(TextenvError, match="row 3: the reward function 'fails_on_a' failed: division by zero"):
        score_responses(PythonReward(fails_on_a, task.tokenizer), responses, lambda row: f"row {row}")


def test_scores_come_without_gradient(responses):
    weight = torch.ones(1, requires_grad=True)

    class Learned:
        name = "learned"

        def __call__(self, responses):
            return weight * responses.lengths

    assert not score_responses(Learned(), responses, str).requires_grad
