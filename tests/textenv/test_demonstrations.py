from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from textenv import models
from textenv.demonstrations import SAMPLES, Demonstrations, best_demonstrations
from textenv.errors import TextenvError, UsageError
from textenv.responses import Prompts, Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.exact import EOS, PAD, Exact
from textenv.tasks.text import TextTask

PROMPTS = Prompts.from_lists([[2], [3, 4]], PAD)


def test_each_prompt_has_one_response() -> None:
    assert len(Demonstrations(Responses.from_lists(PROMPTS, [[2, EOS], [4]], PAD))) == 2
    with pytest.raises(ValueError, match="4 responses to 2 prompts"):
        Demonstrations(Responses.from_lists(PROMPTS, [[2], [2], [3], [3]], PAD))


def test_they_come_back_from_a_file(tmp_path: Path) -> None:
    written = Demonstrations(Responses.from_lists(PROMPTS, [[2, EOS], [4]], PAD))
    written.save(tmp_path / "some.parquet", Exact().tokenizer)
    read = Demonstrations.load(tmp_path / "some.parquet", PAD)
    assert read.responses.to_lists() == [[2, EOS], [4]]
    assert read.responses.prompts.to_lists() == [[2], [3, 4]]
    assert pq.read_table(tmp_path / "some.parquet").column("response").to_pylist() == ["a", "c"]


def test_a_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.parquet"
    with pytest.raises(TextenvError, match="there is no demonstrations file"):
        Demonstrations.load(file, PAD)
    file.write_text("no Parquet")
    with pytest.raises(TextenvError, match="cannot be read as Parquet"):
        Demonstrations.load(file, PAD)
    pq.write_table(pa.table({"prompt_ids": [[2]]}), file)
    with pytest.raises(TextenvError, match="lacks the columns response_ids"):
        Demonstrations.load(file, PAD)
    tokens = pa.list_(pa.int32())
    pq.write_table(pa.table({name: pa.array([], tokens) for name in ("prompt_ids", "response_ids")}), file)
    with pytest.raises(TextenvError, match="holds no demonstration"):
        Demonstrations.load(file, PAD)
    pq.write_table(pa.table({"prompt_ids": pa.array([[]], tokens), "response_ids": pa.array([[2]], tokens)}), file)
    with pytest.raises(TextenvError, match="demonstration that cannot be: prompt 0 is empty"):
        Demonstrations.load(file, PAD)


def test_the_best_by_the_truth_are_chosen() -> None:
    task, reference = Exact(), models.load("exact")
    prompts = prompts_of(task, task.fixed_prompts("train", 20))
    told: list[tuple[int, int]] = []
    best = best_demonstrations(
        task,
        reference,
        prompts,
        torch.Generator().manual_seed(0),
        lambda done, total, numbers: told.append((done, total)),
    )
    assert told == [(16, 20), (20, 20)]
    # The same responses again: none of the 64 is better than what was chosen of them.
    first = reference.sample(
        prompts[torch.arange(16)], group_size=SAMPLES, max_tokens=5, generator=torch.Generator().manual_seed(0)
    ).responses
    highest = task.gold(first).score.view(16, SAMPLES).amax(dim=1)
    torch.testing.assert_close(task.gold(best.responses).score[:16], highest)


def test_without_truth_nobody_can_choose() -> None:
    reference = models.load("exact")
    task = TextTask.from_texts(["a b", "b c", "c d"], reference, response_length=5)
    with pytest.raises(UsageError, match="no known truth"):
        best_demonstrations(
            task, reference, prompts_of(task, task.fixed_prompts("train", 1)), torch.Generator().manual_seed(0)
        )
