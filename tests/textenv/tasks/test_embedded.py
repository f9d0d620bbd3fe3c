"""What holds for each task of the embedded world: prompts, splits, and the shipped truth."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from textenv import models, tasks
from textenv.optimum import KnowsOptimum, estimate_optimum
from textenv.tasks.base import prompts_of
from textenv.tasks.embedded import EmbeddedTask
from textenv.world.vocabulary import IDS, WORDS, decode, encode

SPLITS = ("train", "validation", "test", "heldout")
NAMES = [name for name in tasks.TASKS if isinstance(tasks.load(name), EmbeddedTask)]


@pytest.fixture(scope="module", params=NAMES)
def task(request) -> EmbeddedTask:
    return tasks.load(request.param)


def test_all_of_the_world_is_here():
    assert NAMES == ["concierge", "reviews", "summary", "translate", "classify"]


def test_words_and_ids_are_the_tokenizers(task):
    words = list(WORDS[: len(task.tokenizer)])
    assert task.tokenizer.convert_ids_to_tokens(encode(words)) == words == decode(encode(words))
    assert len(IDS) == len(WORDS)
    assert decode([-1, 10**6]) == ["<unk>", "<unk>"]


def test_every_split_has_prompts_that_fit_and_the_fixed_ones_never_change(task):
    for split in SPLITS:
        prompts = task.fixed_prompts(split, 50)
        assert prompts == task.fixed_prompts(split, 60)[:50]
        assert max(map(len, prompts)) <= task.prompt_length
        assert max(map(max, prompts)) < len(task.tokenizer)
        assert prompts[0] != task.sample_prompts(split, 1, np.random.default_rng(99))[0]


def test_no_prompt_is_in_two_splits(task):
    prompts = {split: {tuple(prompt) for prompt in task.fixed_prompts(split, 500)} for split in SPLITS}
    assert sum(map(len, prompts.values())) == len(set().union(*prompts.values()))


def test_what_the_grammar_writes_fits_and_is_paid(task):
    rng = np.random.default_rng(0)
    scores = []
    for prompt in task.fixed_prompts("train", 200):
        text = task.write(rng, decode(prompt))
        assert len(text.words) <= task.response_length
        assert text.words[-1] == "<eos>"
        assert text.logprob < 0
        attributes = task.read(decode(prompt), text.words)
        assert all(0 <= value <= 1 for value in attributes)
        scores.append(float(task.gold_score(torch.tensor(attributes))))
    assert 0.25 < np.mean(scores) < 0.65


def test_a_prompt_that_is_shown_can_be_typed(task):
    for split in SPLITS:
        prompts = task.fixed_prompts(split, 200)
        texts = [task.prompt_text(prompt) for prompt in prompts]
        assert texts == task.tokenizer.batch_decode(prompts, skip_special_tokens=True)
        assert [task.encode_prompt(text) for text in texts] == prompts


def test_the_unit_of_utility_is_the_references_deviation_within_a_prompt(task):
    attributes = load_file(task.folder / "reference_samples.safetensors")["attributes"].double()
    weights = torch.tensor(task.weights).double()
    scores = attributes @ weights / weights.sum()
    assert float(scores.var(dim=1).mean().sqrt()) == pytest.approx(task.deviation, rel=1e-3)
    assert 0.3 < float(scores.mean()) < 0.6
    assert float(scores[:, :64].amax(dim=1).mean()) > 0.8


def test_the_shipped_optimum_is_well_estimated(task):
    assert isinstance(task, KnowsOptimum)
    assert task.importance_samples(10**6) is None
    samples = task.importance_samples(64)
    optimum = estimate_optimum(samples, task.beta)
    assert float(optimum.effective_sample_sizes.median()) > 50
    assert float(optimum.stderrs.max()) < 0.05


def test_the_shipped_samples_are_those_of_the_shipped_reference(task):
    """Sampled afresh, it scores what its shipped samples scored."""
    reference = models.load(task.reference)
    prompts = prompts_of(task, task.fixed_prompts("validation", 32))
    sample = reference.sample(
        prompts, group_size=16, max_tokens=task.response_length, generator=torch.Generator().manual_seed(0)
    )
    scores = task.gold(sample.responses).score.view(32, 16)
    stored = load_file(task.folder / "reference_samples.safetensors")["attributes"][:32].float()
    stderr = float(scores.std(dim=1).mean()) / (32 * 16) ** 0.5
    assert abs(float(scores.mean() - task.gold_score(stored).mean())) < 5 * stderr
