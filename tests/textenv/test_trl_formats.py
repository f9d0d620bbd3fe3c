"""TRL's formats: `datasets` loads them, and what is written is read again."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from textenv import tasks
from textenv.errors import TextenvError, UsageError
from textenv.preferences import Preferences
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.trl_formats import export_paired, export_unpaired, import_paired, import_unpaired

TASK = tasks.load("concierge")
EOS = TASK.tokenizer.eos_token_id
LABELS = [1.0, 0.0, 0.75, 0.5]


def responses(*texts: str) -> list[list[int]]:
    return [[*TASK.tokenizer.encode(text, add_special_tokens=False), EOS] for text in texts]


def some() -> Preferences:
    prompts = prompts_of(TASK, TASK.sample_prompts("train", 4, np.random.default_rng(0)))
    return Preferences(
        Responses.from_lists(prompts, responses("the tavern is pink .", "i do not know .", "no .", "yes ."), 0),
        Responses.from_lists(prompts, responses("yes .", "the inn lies in riverside .", "yes .", "no ."), 0),
        label=torch.tensor(LABELS),
        rater=["ann"] * 4,
        session_time=torch.zeros(4, dtype=torch.float64),
        utility=torch.zeros(4, 2),
        probability=torch.full((4,), 0.5),
    )


@pytest.fixture(params=[".jsonl", ".parquet"])
def path(request, tmp_path):
    return tmp_path / f"preferences{request.param}"


def loaded(path):
    kind = "json" if path.suffix == ".jsonl" else "parquet"
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


def test_datasets_loads_pairs(path):
    assert export_paired(some(), path, TASK.tokenizer) == 3
    table = loaded(path)
    assert table.column_names == ["prompt", "chosen", "rejected", "margin"]
    assert table["chosen"][:] == ["the tavern is pink .", "the inn lies in riverside .", "no ."]
    assert table["rejected"][:] == ["yes .", "i do not know .", "yes ."]
    assert table["margin"][:] == [1.0, 1.0, 0.5]
    assert all(prompt.startswith("<bos> ") and prompt.endswith(" <assistant>") for prompt in table["prompt"])


def test_pairs_are_read_again_the_chosen_one_first(path):
    before = some()
    export_paired(before, path, TASK.tokenizer)
    again = import_paired(path, TASK.tokenizer, rater="bob")
    assert again.prompts.to_lists() == before.prompts.to_lists()[:3]
    first, second = before.first.to_lists(), before.second.to_lists()
    assert again.first.to_lists() == [first[0], second[1], first[2]]
    assert again.second.to_lists() == [second[0], first[1], second[2]]
    assert again.label.tolist() == [1.0, 1.0, 0.75]
    assert again.rater == ["bob"] * 3
    assert again.utility.isnan().all()


def test_responses_alone_are_written_and_read(path):
    assert export_unpaired(some(), path, TASK.tokenizer) == 6
    table = loaded(path)
    assert table.column_names == ["prompt", "completion", "label"]
    assert table["label"][:] == [True, False, False, True, True, False]
    assert table.features["label"].dtype == "bool"
    again, label = import_unpaired(path, TASK.tokenizer)
    assert label.tolist() == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert again.to_lists()[:2] == responses("the tavern is pink .", "yes .")
    assert len(again.prompts) == 6


def test_a_file_without_margins_is_sure(tmp_path):
    row = {"prompt": "a b", "chosen": "c", "rejected": "d"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    again = import_paired(tmp_path / "p.jsonl", tasks.load("exact").tokenizer)
    assert again.label.tolist() == [1.0]
    assert again.prompts.to_lists() == [[2, 3]]
    assert again.first.to_lists() == [[4, 1]]


PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([PAIR, {"prompt": "a", "chosen": "b"}], "row 1 lacks rejected"),
        ([{**PAIR, "chosen": 3}], "row 0 has a chosen that is no text"),
        ([{**PAIR, "prompt": ""}], "row 0 has an empty prompt"),
        ([{**PAIR, "margin": 3}], "row 0 has the margin 3; expected is the lead of the chosen response in votes"),
        ([PAIR, 7], "row 1 lacks prompt, chosen, rejected"),
        ([], "holds no row"),
    ],
)
def test_rows_that_cannot_be_are_named(tmp_path, rows, message):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TextenvError, match=message):
        import_paired(tmp_path / "p.jsonl", tasks.load("exact").tokenizer)


def test_files_that_cannot_be_are_refused(tmp_path):
    tokenizer = TASK.tokenizer
    with pytest.raises(UsageError, match=r"p\.csv must end with \.jsonl or \.parquet"):
        export_paired(some(), tmp_path / "p.csv", tokenizer)
    with pytest.raises(TextenvError, match="every comparison is a tie"):
        export_unpaired(some()[torch.tensor([3])], tmp_path / "p.jsonl", tokenizer)
    with pytest.raises(TextenvError, match="there is no file"):
        import_unpaired(tmp_path / "p.jsonl", tokenizer)
    (tmp_path / "p.jsonl").write_text('{"prompt": ')
    with pytest.raises(TextenvError, match="cannot be read as jsonl"):
        import_paired(tmp_path / "p.jsonl", tokenizer)
    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"], "label": ["yes"]}), tmp_path / "p.parquet")
    with pytest.raises(TextenvError, match="row 0 has the label 'yes', expected true or false"):
        import_unpaired(tmp_path / "p.parquet", tokenizer)
