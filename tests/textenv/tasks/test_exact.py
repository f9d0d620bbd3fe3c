"""The properties that make Exact-v0 a fair test of algorithms, all by enumeration."""

import itertools

import numpy as np
import pytest
import torch

from textenv import enumeration, models
from textenv.errors import UsageError
from textenv.responses import Prompts, Responses
from textenv.rewards import GoldReward
from textenv.tasks.exact import Exact, attributes_of


@pytest.fixture(scope="module")
def task():
    return Exact()


@pytest.fixture(scope="module")
def reference():
    return models.load("exact")


@pytest.fixture(scope="module")
def logprobs(task, reference):
    return enumeration.all_logprobs(task, reference).double()


@pytest.fixture(scope="module")
def rewards(task, reference):
    return enumeration.all_rewards(task, GoldReward(task), reference)


def judged(prompt, response):
    """Attributes of one response; letters are tokens, "." is the end and "_" padding."""
    tokens = {"_": 0, ".": 1, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
    prompts = Prompts.from_lists([[tokens[letter] for letter in prompt]], pad_id=0, length=3)
    responses = Responses.from_lists(prompts, [[tokens[letter] for letter in response]], pad_id=0)
    return [round(value, 4) for value in attributes_of(responses)[0].tolist()]


@pytest.mark.parametrize(
    ("prompt", "response", "attributes"),
    [
        ("dea", "aba.", [0.5, 1.0, 1.0]),  # two "a" where three were asked for
        ("dea", "abaca", [1.0, 1.0, 0.0]),  # there is no end
        ("dea", "aaa.", [1.0, 1.0, 1.0]),
        ("c", ".", [0.5, 0.0, 1.0]),  # empty: one short, and nothing to begin or end with
        ("c", "c.", [1.0, 0.0, 1.0]),  # one letter is no pair
        ("c", "acb.", [1.0, 0.0, 1.0]),  # begins and ends otherwise
        ("c", "dcd.", [1.0, 1.0, 1.0]),
        ("ab", "_bb_.", [1.0, 0.0, 1.0]),  # padding is no letter
        ("ab", "bbbbb", [0.25, 1.0, 0.0]),
    ],
)
def test_attributes_by_hand(prompt, response, attributes):
    assert judged(prompt, response) == attributes


def test_the_size_is_as_promised(task, reference, logprobs):
    assert len(task.prompts) >= 4
    assert reference.vocab_size >= 6
    assert task.response_length >= 5
    assert logprobs.shape == (4, 9331)


def test_the_reference_is_far_from_uniform_and_ends_at_every_length(logprobs):
    probs = logprobs.exp()
    entropy = -(probs * logprobs).sum(dim=1)
    # A uniform policy over 7 tokens has an entropy of about 8 nats.
    assert (entropy < 7.0).all()
    assert (entropy > 3.0).all()
    blocks = [0, *(sum(6**t for t in range(n)) for n in range(1, 6)), 9331]
    for start, stop in itertools.pairwise(blocks):
        assert probs[:, start:stop].sum(dim=1).mean() > 0.05


def test_utility_has_unit_deviation_within_prompts(logprobs, rewards):
    probs = logprobs.exp()
    mean = (probs * rewards).sum(dim=1, keepdim=True)
    variance = (probs * (rewards - mean).square()).sum(dim=1).mean()
    torch.testing.assert_close(variance, torch.tensor(1.0, dtype=torch.float64), rtol=1e-4, atol=0)


def test_score_is_in_the_unit_interval_and_proportional_to_utility(task, reference):
    prompts = enumeration.all_prompts(task)
    responses = enumeration.all_responses(prompts, vocab_size=7, max_tokens=5, eos_id=1, pad_id=0)
    gold = task.gold(responses)
    assert gold.attributes.shape == (4 * 9331, len(task.attribute_names))
    for values in (gold.attributes, gold.score):
        assert values.min() >= 0
        assert values.max() <= 1 + 1e-6
    torch.testing.assert_close(gold.utility / gold.utility.max(), gold.score / gold.score.max())
    assert gold.score.reshape(4, -1).max(dim=1).values.allclose(torch.ones(4))


def test_the_reward_does_not_decompose_over_tokens(reference, task, rewards):
    """The best sum of one number for each token at each position leaves much of the variance unexplained."""
    responses = enumeration.all_responses(enumeration.all_prompts(task), vocab_size=7, max_tokens=5, eos_id=1, pad_id=0)
    ids = torch.where(responses.mask, responses.ids, 7)[:9331]
    features = torch.nn.functional.one_hot(ids, 8).flatten(1).double()
    for values in rewards:
        solution = torch.linalg.lstsq(features, values[:, None], driver="gelsd").solution
        residual = values - (features @ solution)[:, 0]
        assert residual.var() / values.var() > 0.2


def test_the_optimum_is_worth_reaching_and_ignoring_kl_is_not(task, reference, logprobs, rewards):
    optimum = enumeration.exact_optimum(task, reference, GoldReward(task), task.beta).value
    start = enumeration.objective_of(logprobs, logprobs, rewards, task.beta)
    greedy = enumeration.objective_of(enumeration.best_responses(rewards), logprobs, rewards, task.beta)
    assert start.kl == 0
    assert optimum.kl >= 1
    assert (greedy.objective - start.objective) / (optimum.objective - start.objective) < 0.3


def test_prompts(task):
    assert task.fixed_prompts("test", 6) == [*task.prompts, *task.prompts[:2]]
    drawn = task.sample_prompts("train", 200, np.random.default_rng(0))
    assert drawn == task.sample_prompts("heldout", 200, np.random.default_rng(0))
    assert {tuple(prompt) for prompt in drawn} == {tuple(prompt) for prompt in task.prompts}
    assert max(map(len, task.prompts)) == task.prompt_length
    # A prompt that is handed out belongs to whom it was given to.
    drawn[0].append(6)
    task.fixed_prompts("test", 1)[0].append(6)
    assert max(map(len, task.prompts)) == 3


def test_a_prompt_that_is_shown_can_be_typed(task):
    assert [task.prompt_text(prompt) for prompt in task.prompts] == ["c", "a b", "d e a", "c d d"]
    assert [task.encode_prompt(task.prompt_text(prompt)) for prompt in task.prompts] == task.prompts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "prompt is empty"),
        ("a hello b", "does not know 'hello'; it knows a, b, c, d, e"),
        ("a <eos>", "does not know '<eos>'"),
        ("a b c d", "has 4 tokens, more than the 3"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_explained(task, text, message):
    with pytest.raises(UsageError, match=message):
        task.encode_prompt(text)
