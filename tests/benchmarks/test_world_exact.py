"""The shipped checkpoint of Exact-v0 is what its builder writes."""

import json

import pytest
import torch

from benchmarks.world import exact as builder
from textenv import enumeration, models
from textenv.tasks import exact


def quiet(phase: str, done: int, total: int) -> None:
    pass


@pytest.mark.slow
def test_the_shipped_checkpoint_is_rebuilt(tmp_path):
    builder.build(tmp_path / "exact", quiet)
    rebuilt, shipped = models.load(str(tmp_path / "exact")), models.load("exact")
    first, second = (enumeration.all_logprobs(exact.Exact(), model) for model in (rebuilt, shipped))
    # Equal bit by bit on the same machine; on another one rounding differs.
    assert float(enumeration.total_variation(first, second).max()) < 0.1
    truth = json.loads((tmp_path / "exact" / "truth.json").read_text())
    assert truth["score_deviation"] == pytest.approx(exact.utility_deviation(), rel=0.02)
    assert rebuilt.tokenizer.get_vocab() == shipped.tokenizer.get_vocab()


def test_the_reference_is_fitted_to_the_writers_answers():
    shipped = models.load("exact")
    answers, fitted = exact.written_answers()[1], enumeration.all_logprobs(exact.Exact(), shipped).double()
    assert answers.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert float((answers.exp() * (answers - fitted)).sum(dim=1).mean()) < 0.1


def test_an_answers_probability_by_hand():
    # To "c", "acbab" has just one c, no frame and no end: 7^-5 e^(8·0.5); "aca." is best: 7^-4 e^8.
    logprobs = exact.written_answers()[1][0]
    responses = enumeration.all_responses(
        enumeration.all_prompts(exact.Exact()), vocab_size=7, max_tokens=5, eos_id=1, pad_id=0
    )
    rows = {tuple(ids): row for row, ids in enumerate(responses.to_lists()[:9331])}
    plain, best = logprobs[rows[2, 4, 3, 2, 3]], logprobs[rows[2, 4, 2, 1]]
    assert float(best - plain) == pytest.approx(torch.tensor(7.0).log().item() + 8 * 0.5, abs=1e-5)


def test_the_shipped_checkpoint_is_small():
    assert sum(path.stat().st_size for path in exact.CHECKPOINT.iterdir()) < 600_000


def test_the_tokenizer_reads_its_own_words():
    language_model = models.load("exact")
    assert language_model.encode("d e a") == [5, 6, 2]
    assert language_model.decode([5, 6, 2, 1, 0]) == "d e a"
    assert (language_model.pad_id, language_model.eos_id) == (0, 1)
