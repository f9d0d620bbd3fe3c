import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textenv import models
from textenv.errors import UsageError
from textenv.optimum import KnowsOptimum, estimate_optimum
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.concierge import CHECKPOINT, WEIGHTS, Concierge, decode, encode, utility_deviation
from textenv.world import sentences as s


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
    assert gold.utility.tolist() == pytest.approx([right / utility_deviation(), wrong / utility_deviation()])


def test_words_and_ids_are_the_tokenizers(task):
    words = list(s.words())
    assert task.tokenizer.convert_ids_to_tokens(encode(words)) == words == decode(encode(words))
    text = "hello ! the museum opens at nine ."
    assert task.tokenizer.decode(encode(text.split())) == text
    assert task.tokenizer(text, add_special_tokens=False)["input_ids"] == encode(text.split())
    assert decode([-1, 10**6]) == [s.UNK, s.UNK]


def test_every_split_has_prompts_that_fit_and_the_fixed_ones_never_change(task):
    for split in ("train", "validation", "test", "heldout"):
        prompts = task.fixed_prompts(split, 50)
        assert prompts == task.fixed_prompts(split, 60)[:50]
        assert max(map(len, prompts)) <= task.prompt_length
        assert prompts[0] != task.sample_prompts(split, 1, np.random.default_rng(99))[0]


def test_the_unit_of_utility_is_the_references_deviation_within_a_prompt():
    attributes = load_file(CHECKPOINT / "reference_samples.safetensors")["attributes"].double()
    weights = torch.tensor(WEIGHTS).double()
    scores = attributes @ weights / weights.sum()
    assert float(scores.var(dim=1).mean().sqrt()) == pytest.approx(utility_deviation(), rel=1e-3)
    assert 0.3 < float(scores.mean()) < 0.6
    assert float(scores[:, :64].amax(dim=1).mean()) > 0.85


def test_the_shipped_optimum_is_well_estimated(task):
    assert isinstance(task, KnowsOptimum)
    assert task.importance_samples(10**6) is None
    samples = task.importance_samples(64)
    optimum = estimate_optimum(samples, task.beta)
    assert float(optimum.effective_sample_sizes.median()) > 50
    assert float(optimum.stderrs.max()) < 0.05


def test_the_shipped_samples_are_those_of_the_shipped_reference(task):
    """Sampled afresh, it scores what its shipped samples scored."""
    reference = models.load("concierge")
    prompts = prompts_of(task, task.fixed_prompts("validation", 32))
    sample = reference.sample(
        prompts, group_size=16, max_tokens=task.response_length, generator=torch.Generator().manual_seed(0)
    )
    scores = task.gold(sample.responses).score.view(32, 16)
    stored = load_file(CHECKPOINT / "reference_samples.safetensors")["attributes"][:32].float()
    weights = torch.tensor(WEIGHTS)
    expected = (stored @ weights / weights.sum()).mean()
    stderr = float(scores.std(dim=1).mean()) / (32 * 16) ** 0.5
    assert abs(float(scores.mean() - expected)) < 5 * stderr


def test_a_prompt_that_is_shown_can_be_typed(task):
    for split in ("train", "validation", "test", "heldout"):
        prompts = task.fixed_prompts(split, 200)
        texts = [task.prompt_text(prompt) for prompt in prompts]
        assert texts == task.tokenizer.batch_decode(prompts, skip_special_tokens=True)
        assert [task.encode_prompt(text) for text in texts] == prompts


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
