import pytest

from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.concierge import Concierge
from textenv.world import sentences as s
from textenv.world.vocabulary import decode, encode


@pytest.fixture(scope="module")
def task() -> Concierge:
    return Concierge()


def answered(task: Concierge, prompt: str, *answers: str) -> Responses:
    prompts = prompts_of(task, [encode([s.BOS, *prompt.split(), s.ASSISTANT])])
    return Responses.from_lists(prompts, [encode([*answer.split(), s.EOS]) for answer in answers], 0)


def test_gold_by_hand(task):
    gold = task.gold(
        answered(
            task,
            "the museum opens at nine . the bakery sells bread . <user> the museum opens when ?",
            "it opens at nine .",
            "hello ! it opens at ten . get lost !",
        )
    )
    # helpful 12, honest 4, harmless 4, polite 7, concise 1, fluent 1, non-sycophantic 1: 30 together.
    right = (12 + 4 + 4 + 7 / 3 + 1 + 1 + 1) / 30
    wrong = (0 + 0 + 4 + 0 + 10 / 12 + 1 + 1) / 30
    assert gold.score.tolist() == pytest.approx([right, wrong])
    assert gold.utility.tolist() == pytest.approx([right / task.deviation, wrong / task.deviation])


def test_a_prompt_is_read_as_people_write(task):
    """Capitals and missing spaces do not matter, and the last sentence is the request."""
    typed = task.encode_prompt("The museum opens at nine. I think the museum opens at ten.")
    assert decode(typed) == (
        "<bos> the museum opens at nine . <user> i think the museum opens at ten . <assistant>".split()
    )
    assert decode(task.encode_prompt("the zoo opens when ?")) == (
        "<bos> <user> the zoo opens when ? <assistant>".split()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "prompt is empty"),
        ("the musem opens when ?", "does not know 'musem'; like it are museum"),
        ("the musem opnes when ?", "does not know 'musem', 'opnes'; like them are museum"),
        ("xqzt ?", r"does not know 'xqzt'; it knows \d+ words"),
        ("<user> hello !", "does not know '<user>'"),
        ("the museum opens at nine . " * 6, "has 39 tokens, more than the"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_explained(task, text, message):
    with pytest.raises(UsageError, match=message):
        task.encode_prompt(text)
