import numpy as np
import pytest

from textenv import tasks
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.translate import Translate
from textenv.world import sentences as s
from textenv.world import translate
from textenv.world.vocabulary import decode, encode

TYPED = "nesu lido ha kubun vamita hozik vude ."
PROMPT = f"{s.BOS} {TYPED} {s.ASSISTANT}"
RIGHT = "our ancient baker sold some bread by the river on monday ."


@pytest.fixture(scope="module")
def task() -> Translate:
    return Translate()


def test_it_is_listed(task):
    assert isinstance(tasks.load("translate"), Translate)
    assert task.attribute_names == ("chrf",)


def test_gold_is_chrf(task):
    prompts = prompts_of(task, [encode(PROMPT.split())])
    answers = (f"{RIGHT} <eos>", "winter was long . <eos>", "<eos>")
    responses = Responses.from_lists(prompts, [encode(answer.split()) for answer in answers], encode([s.PAD])[0])
    gold = task.gold(responses)
    expected = [translate.read_response(PROMPT.split(), answer.split()).chrf for answer in answers]
    assert (expected[0], expected[2]) == (1, 0)
    assert 0 < expected[1] < 0.3
    assert gold.score.tolist() == pytest.approx(expected)
    assert gold.attributes.flatten().tolist() == pytest.approx(expected)
    assert gold.utility.tolist() == pytest.approx([score / task.deviation for score in expected])


def test_a_prompt_that_is_shown_can_be_typed(task):
    for split in ("train", "validation", "test", "heldout"):
        prompts = task.fixed_prompts(split, 100)
        assert prompts == task.fixed_prompts(split, 120)[:100]
        assert max(map(len, prompts)) <= task.prompt_length
        assert [task.encode_prompt(task.prompt_text(prompt)) for prompt in prompts] == prompts


def test_a_prompt_is_read_as_people_write(task):
    for text in (TYPED, "Nesu lido ha kubun vamita hozik vude.", TYPED.removesuffix(" .")):
        assert decode(task.encode_prompt(text)) == PROMPT.split()


def test_the_longest_sentence_can_be_typed(task):
    prompt = task.encode_prompt("nesu lido ha kubun vamita hozik rolo vude .")
    assert translate.translation(decode(prompt)) == "the old baker sells the strange bread near the river on monday ."


def test_the_task_writes_and_reads_the_language(task):
    prompt = task.sample_words(np.random.default_rng(0), "train")
    assert prompt == translate.sample_prompt(np.random.default_rng(0), "train")
    written = task.write(np.random.default_rng(1), prompt)
    assert written == translate.sample_response(np.random.default_rng(1), prompt)
    assert task.read(prompt, written.words) == translate.read_response(prompt, written.words)
