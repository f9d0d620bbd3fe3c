"""The shipped checkpoint of Exact-v0 is what its builder writes."""

import json

import pytest
import torch

from textenv import models
from textenv.tasks import exact, exact_build


def test_the_shipped_checkpoint_is_rebuilt(tmp_path):
    exact_build.build(tmp_path / "exact")
    rebuilt, shipped = models.load(str(tmp_path / "exact")), models.load("exact")
    for name, weight in shipped.model.state_dict().items():
        torch.testing.assert_close(rebuilt.model.state_dict()[name], weight)
    truth = json.loads((tmp_path / "exact" / "truth.json").read_text())
    assert truth["score_deviation"] == pytest.approx(exact.utility_deviation(), rel=1e-5)
    assert rebuilt.tokenizer.get_vocab() == shipped.tokenizer.get_vocab()


def test_the_shipped_checkpoint_is_small():
    assert sum(path.stat().st_size for path in exact.CHECKPOINT.iterdir()) < 600_000


def test_the_tokenizer_reads_its_own_words():
    language_model = models.load("exact")
    assert language_model.encode("d e a") == [5, 6, 2]
    assert language_model.decode([5, 6, 2, 1, 0]) == "d e a"
    assert (language_model.pad_id, language_model.eos_id) == (0, 1)
