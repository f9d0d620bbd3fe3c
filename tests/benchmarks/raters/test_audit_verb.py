"""`textenv raters audit`: its table, its report, and what it says of files that cannot be audited."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks.raters import audit
from textenv.errors import DiskError, TextenvError, UsageError


@pytest.fixture
def file(tmp_path: Path, label_pool: Callable[..., Any]) -> Path:
    path = tmp_path / "labels.parquet"
    label_pool((0.95, 0.9, 0.85, 0.5, 0.1), 300, 0, gold_rate=0.1).save(path)
    return path


def run(*words: object) -> str:
    console = Console(file=io.StringIO(), width=150)
    assert audit.run([str(word) for word in (*words, "--resamples", 20)], console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_table_names_whom_to_drop_and_why(file: Path) -> None:
    text = run(file)
    assert "1,500 answers of 5 raters to 300 items: 2 to drop, 0 of another taste, 0 to watch, 3 to keep" in text
    assert "Fleiss' kappa 0." in text
    rows = [line for line in text.splitlines() if line.startswith("rater-")]
    assert [row.split()[:2] for row in rows[:2]] == [["rater-4", "drop"], ["rater-3", "drop"]]
    assert {row.split()[1] for row in rows[2:]} == {"keep"}
    assert re.search(r"right \d+ % of the time \[", rows[0])
    shorter = run(file, "--rows", 1)
    assert "and 4 more" in shorter
    assert "rater-0" not in shorter


class Page(HTMLParser):
    """Collects the tags and refuses what is loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {"src", "onload", "onclick"} & {name for name, _ in attributes}


def test_the_report_stands_alone_and_escapes_names(tmp_path: Path, labels_from: Callable[..., Any], file: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    assert f"report: {target}" in run(file, "--out", target)
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("svg") == 2
    assert page.tags.count("tr") == 1 + 5
    assert "script" not in page.tags
    assert "<!doctype html>" in text
    assert "http:" not in text
    assert "https:" not in text
    assert "prefers-color-scheme: dark" in text

    labels_from([0, 0, 1, 1], ["<b>ann</b>", "$x$ & y"] * 2, [1, 1, 0, 1]).save(file)
    run(file, "--out", target)
    text = target.read_text(encoding="utf-8")
    assert "&lt;b&gt;ann" in text
    assert "<b>ann" not in text
    assert "$x$ &amp; y" in text


def test_nothing_is_written_where_something_is_wrong(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(TextenvError, match="cannot be read as Parquet labels"):
        run(file, "--out", target)
    file.write_bytes(data)
    pq.write_table(pq.read_table(file).drop_columns(["rater", "swapped"]), file)
    with pytest.raises(TextenvError, match="lacks the columns rater, swapped"):
        run(file, "--out", target)
    file.write_bytes(data)
    table = pq.read_table(file)
    pq.write_table(table.take([*range(10), 3]), file)
    with pytest.raises(TextenvError, match="row 10 has a vote that an earlier row has already"):
        run(file, "--out", target)
    assert not target.exists()
    file.write_bytes(data)
    (tmp_path / "taken").write_text("")
    with pytest.raises(DiskError):
        run(file, "--out", tmp_path / "taken" / "report.html")


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--rows", "-1"], "--rows is -1"),
        (["--out", "report.pdf"], r"report\.html"),
        (["--useful-accuracy", "1.5"], "useful_accuracy must be"),
    ],
)
def test_flags_out_of_range_are_refused(file: Path, flags: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        run(file, *flags)


def test_a_pool_of_too_many_to_name_is_drawn_without_names(tmp_path: Path, label_pool: Callable[..., Any]) -> None:
    file, target = tmp_path / "many.parquet", tmp_path / "report.html"
    label_pool((0.8,) * 45, 20, 0).save(file)
    assert "45 raters" in run(file, "--out", target)
    assert "rater-44" in target.read_text(encoding="utf-8")
