import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.reviews import Reviews
from textenv.world import sentences as s
from textenv.world.vocabulary import decode, encode

SPLITS = ("train", "validation", "test", "heldout")
PROMPT = "hotel review : how were the rooms , the food and the bill ? we came on monday . the staff was rude , but"


@pytest.fixture(scope="module")
def task() -> Reviews:
    return Reviews()


def answered(task: Reviews, *answers: str) -> Responses:
    prompts = prompts_of(task, [task.encode_prompt(PROMPT)])
    return Responses.from_lists(prompts, [encode([*answer.split(), s.EOS]) for answer in answers], 0)


def test_gold_by_hand(task):
    gold = task.gold(answered(task, "the rooms were very clean , the food was stale .", "what a waste !", ""))
    assert task.attribute_names == ("sentiment", "coverage", "fluent")
    attributes = [(0.5 + 0.3 / 8, 2 / 3, 1), (0.5 - 1 / 8, 0, 1), (0.5, 0, 0)]
    # Sentiment counts 2, coverage 3, fluency 1: 6 together.
    scores = [(2 * sentiment + 3 * coverage + fluent) / 6 for sentiment, coverage, fluent in attributes]
    assert torch.allclose(gold.attributes, torch.tensor(attributes))
    assert gold.score.tolist() == pytest.approx(scores)
    assert gold.utility.tolist() == pytest.approx([score / task.deviation for score in scores])


def test_every_split_has_prompts_that_fit_and_the_fixed_ones_never_change(task):
    for split in SPLITS:
        prompts = task.fixed_prompts(split, 50)
        assert prompts == task.fixed_prompts(split, 60)[:50]
        assert max(map(len, prompts)) <= task.prompt_length
        assert prompts[0] != task.sample_prompts(split, 1, np.random.default_rng(99))[0]


@given(st.integers(0, 2**32 - 1), st.sampled_from(SPLITS))
@settings(max_examples=100, deadline=None)
def test_a_prompt_is_typed_as_it_is_shown_and_its_responses_fit(task, seed, split):
    rng = np.random.default_rng(seed)
    (prompt,) = task.sample_prompts(split, 1, rng)
    assert task.encode_prompt(task.prompt_text(prompt).upper()) == prompt
    written = task.write(rng, decode(prompt))
    assert len(encode(written.words)) <= task.response_length
    assert len(task.read(decode(prompt), written.words)) == len(task.weights)


def test_a_typed_prompt_needs_known_words_and_may_lack_the_request(task):
    assert decode(task.encode_prompt("The hotel was dirty!")) == [
        s.BOS, "the", "hotel", "was", "dirty", "!", s.USER, s.ASSISTANT,
    ]  # fmt: skip
    with pytest.raises(UsageError, match="zeppelin"):
        task.encode_prompt("zeppelin review : how were the rooms ?")
    with pytest.raises(UsageError):
        task.encode_prompt("")
    with pytest.raises(UsageError):
        task.encode_prompt(PROMPT + " the rooms were clean")
