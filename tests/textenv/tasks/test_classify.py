import numpy as np
import pytest

from textenv import tasks
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.classify import Classify
from textenv.world import classify
from textenv.world import sentences as s
from textenv.world.vocabulary import decode, encode

TYPED = "labels : threat like rob , complaint like nasty . i find the bread hardly nice ."
PROMPT = f"<bos> {TYPED.replace('. i', '. <user> i')} <assistant>"


@pytest.fixture(scope="module")
def task() -> Classify:
    return Classify()


def test_it_is_listed(task):
    assert isinstance(tasks.load("classify"), Classify)
    assert task.attribute_names == ("correct", "valid", "grounded", "polite", "concise", "fluent")


def test_gold_by_hand(task):
    prompts = prompts_of(task, [encode(PROMPT.split())])
    answers = ("i pick complaint . you wrote hardly nice . have fun ! <eos>", "i pick threat . <eos>", "<eos>")
    responses = Responses.from_lists(prompts, [encode(answer.split()) for answer in answers], encode([s.PAD])[0])
    # correct 10, valid 1, grounded 5, polite 4, concise 2, fluent 1: 23 together.
    expected = [1, (1 + 2.5 + 2 + 2 + 1) / 23, (2.5 + 2 + 2) / 23]
    gold = task.gold(responses)
    assert gold.score.tolist() == pytest.approx(expected)
    assert gold.utility.tolist() == pytest.approx([score / task.deviation for score in expected])


def test_a_prompt_that_is_shown_can_be_typed(task):
    for split in ("train", "validation", "test", "heldout"):
        prompts = task.fixed_prompts(split, 100)
        assert prompts == task.fixed_prompts(split, 120)[:100]
        assert max(map(len, prompts)) <= task.prompt_length
        assert [task.encode_prompt(task.prompt_text(prompt)) for prompt in prompts] == prompts


def test_a_prompt_is_read_as_people_write(task):
    assert decode(
        task.encode_prompt("Labels: threat like rob, complaint like nasty. I find the bread hardly nice.")
    ) == (PROMPT.split())
    assert decode(task.encode_prompt("i want the tea .")) == "<bos> <user> i want the tea . <assistant>".split()


def test_the_task_writes_and_reads_the_language(task):
    prompt = task.sample_words(np.random.default_rng(0), "train")
    assert prompt == classify.sample_prompt(np.random.default_rng(0), "train")
    written = task.write(np.random.default_rng(1), prompt)
    assert written == classify.sample_response(np.random.default_rng(1), prompt)
    assert task.read(prompt, written.words) == classify.read_response(prompt, written.words)
