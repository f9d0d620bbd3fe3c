"""Prompts from text, JSONL, Parquet and saved datasets; what cannot be used is named with its place."""

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import prompt_files
from textenv.errors import TextenvError, UsageError
from textenv.prompt_files import read_prompts

PROMPTS = ["the cat\nsat ", "a dog", "東京 👍", "a dog"]


@pytest.fixture
def write(tmp_path):
    def write(content, name="prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def texts(path):
    return [prompt.text for prompt in read_prompts(path)]


def test_a_text_file_has_a_prompt_a_line(write):
    path = write(b"\xef\xbb\xbfthe cat\r\n\r\n  a dog \r\n")
    assert [(prompt.text, prompt.where) for prompt in read_prompts(path)] == [
        ("the cat", f"{path}, line 1"),
        ("a dog", f"{path}, line 3"),
    ]


def test_jsonl_keeps_the_prompt_as_it_is(write):
    assert texts(write('{"prompt": "the cat\\nsat ", "other": 1}\n\n{"prompt": "a dog"}\n', "p.jsonl")) == PROMPTS[:2]


def test_parquet_and_datasets_keep_them_too(tmp_path):
    path = table(tmp_path / "p.parquet", other=[1, 2, 3, 4], prompt=PROMPTS)
    assert texts(path) == PROMPTS
    assert read_prompts(path)[2].where == f"{path}, row 3"
    assert texts(table(tmp_path / "q.PARQUET", prompt=pa.array(PROMPTS).dictionary_encode())) == PROMPTS
    datasets.Dataset.from_dict({"other": [1, 2, 3, 4], "prompt": PROMPTS}).save_to_disk(tmp_path / "saved")
    assert texts(tmp_path / "saved") == PROMPTS
    assert {prompt.split for prompt in read_prompts(tmp_path / "saved")} == {None}


@settings(deadline=None, max_examples=20)  # a busy machine is no failure
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_whatever_a_table_holds_comes_back(tmp_path_factory, prompts):
    path = table(tmp_path_factory.getbasetemp() / "any.parquet", prompt=pa.array(prompts, pa.large_string()))
    assert texts(path) == prompts


def test_rows_that_were_chosen_and_shuffled_are_read_in_their_order(tmp_path):
    whole = datasets.Dataset.from_dict({"prompt": [f"prompt {number}" for number in range(10)]})
    whole.select([7, 2, 5]).save_to_disk(tmp_path / "some")
    assert texts(tmp_path / "some") == ["prompt 7", "prompt 2", "prompt 5"]


def test_the_splits_of_a_dataset_are_kept(tmp_path):
    names = ("train", "validation", "test", "unsupervised")
    parts = {name: datasets.Dataset.from_dict({"prompt": [f"{name} 1", f"{name} 2"]}) for name in names}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert [(prompt.text, prompt.split) for prompt in read_prompts(tmp_path / "saved")] == [
        (f"{name} {number}", name) for name in names[:3] for number in (1, 2)
    ]
    datasets.DatasetDict({"prefs": parts["train"]}).save_to_disk(tmp_path / "other")
    with pytest.raises(UsageError, match="other has the splits prefs; expected is train"):
        read_prompts(tmp_path / "other")
    parts["test"] = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "odd")
    with pytest.raises(UsageError, match=r"odd, split test: no column 'prompt' \(it has 'text'\)"):
        read_prompts(tmp_path / "odd")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "p.txt", "no prompts in it"),
        (b" \n\n", "p.txt", "no prompts in it"),
        (b"the cat\n\xff\xfe dog\n", "p.txt", "p.txt, line 2: not UTF-8"),
        (b'{"prompt": "a"}\n{"prompt": \n', "p.jsonl", "line 2: not JSON"),
        (b'{"text": "a"}\n', "p.jsonl", 'line 1: no field "prompt"'),
        (b'["a"]\n', "p.jsonl", 'line 1: no field "prompt"'),
        (b'{"prompt": 3}\n', "p.jsonl", 'line 1: the field "prompt" is 3; expected is a text'),
        (b'{"prompt": " "}\n', "p.jsonl", "line 1: the field \"prompt\" is ' '"),
        (b"", "p.parquet", "p.parquet cannot be read as Parquet"),
        (b"PAR1 and no more", "p.parquet", "p.parquet cannot be read as Parquet"),
    ],
)
def test_bad_files_are_named_with_their_line(write, content, name, message):
    with pytest.raises(UsageError, match=message):
        read_prompts(write(content, name))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "id": [1]}, r"no column 'prompt' \(it has 'text', 'id'\)"),
        ({}, r"no column 'prompt' \(it has none\)"),
        ({"prompt": pa.array([], pa.string())}, "no prompts in it"),
        ({"prompt": ["a", None]}, "row 2: the column 'prompt' is None; expected is a text"),
        ({"prompt": [3]}, "row 1: the column 'prompt' is 3"),
        ({"prompt": [[{"role": "user", "content": "a"}]]}, r"row 1: the column 'prompt' is \[\{'role'"),
        ({"prompt": ["a", "\n"]}, r"row 2: the column 'prompt' is '\\n'"),
    ],
)
def test_bad_tables_are_named_with_their_row(tmp_path, columns, message):
    with pytest.raises(UsageError, match=message):
        read_prompts(table(tmp_path / "p.parquet", **columns))
    if columns:
        datasets.Dataset(pa.table(columns)).save_to_disk(tmp_path / "saved")
        with pytest.raises(UsageError, match=message):
            read_prompts(tmp_path / "saved")


def test_what_is_missing_or_broken_is_named(tmp_path, monkeypatch):
    for name in ("none.txt", "none.parquet"):
        with pytest.raises(UsageError, match=f"there is no prompts file '.*{name}'"):
            read_prompts(tmp_path / name)
    with pytest.raises(UsageError, match="holds no dataset, as `save_to_disk`"):
        read_prompts(tmp_path)
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"prompt": ["a"]}).save_to_disk(saved)
    next(saved.glob("*.arrow")).write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"the dataset .*saved cannot be read"):
        read_prompts(saved)
    monkeypatch.setattr(prompt_files, "find_spec", lambda _: None)
    with pytest.raises(TextenvError, match=r'pip install "textenv\[datasets\]"'):
        read_prompts(saved)
