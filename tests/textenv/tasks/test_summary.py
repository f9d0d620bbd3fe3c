"""The task around the language of posts and summaries: its tokenizer, its scores, and prompts as people type them."""

import numpy as np
import pytest

from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.summary import Summary
from textenv.world import sentences as s
from textenv.world.vocabulary import decode, encode

POST = (
    "anna writes : hello neighbours ! the museum opens at nine . time flies fast . the bakery sells bread . "
    "it rained again . tldr :"
)


@pytest.fixture(scope="module")
def task() -> Summary:
    return Summary()


def test_gold_by_hand(task):
    prompts = prompts_of(task, [encode([s.BOS, *POST.split(), s.ASSISTANT])])
    answers = ("anna : museum from nine , bakery has bread .", "museum from ten .")
    gold = task.gold(Responses.from_lists(prompts, [encode([*answer.split(), s.EOS]) for answer in answers], 0))
    # Between name and mark there are 22 words; covered 12, faithful 5, short 6, fluent 2: 25 together.
    right = (12 + 5 + 6 * (1 - 10 / 22) / 0.7 + 2) / 25
    wrong = (0 + 5 / 2 + 0 + 2) / 25
    assert gold.score.tolist() == pytest.approx([right, wrong])
    assert gold.utility.tolist() == pytest.approx([right / task.deviation, wrong / task.deviation])
    assert task.attribute_names == ("covered", "faithful", "short", "fluent")


def test_prompts_and_responses_fit_and_are_known_to_the_tokenizer(task):
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test", "heldout"):
        for _ in range(50):
            prompt = task.sample_words(rng, split)
            response = task.write(rng, prompt).words
            assert len(prompt) <= task.prompt_length
            assert len(response) <= task.response_length
            text = " ".join([*prompt, *response])
            assert task.tokenizer(text, add_special_tokens=False)["input_ids"] == encode([*prompt, *response])


def test_a_prompt_that_is_shown_can_be_typed(task):
    for split in ("train", "validation", "test", "heldout"):
        prompts = task.fixed_prompts(split, 100)
        assert prompts == task.fixed_prompts(split, 110)[:100]
        assert [task.encode_prompt(task.prompt_text(prompt)) for prompt in prompts] == prompts


def test_a_prompt_is_read_as_people_write(task):
    """Capitals and missing spaces do not matter, and the mark that asks for a summary may be left out."""
    typed = task.encode_prompt("Anna writes: Hello neighbours! The museum opens at nine.")
    assert decode(typed) == (
        "<bos> anna writes : hello neighbours ! the museum opens at nine . tldr : <assistant>".split()
    )
    assert task.encode_prompt("anna writes : hello neighbours ! the museum opens at nine . tldr :") == typed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "prompt is empty"),
        ("anna writes : the musem opens at nine .", "does not know 'musem'; like it are museum"),
        ("the museum opens at nine . " * 7, "has 46 tokens, more than the 40"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_explained(task, text, message):
    with pytest.raises(UsageError, match=message):
        task.encode_prompt(text)
