"""`textenv raters fit`: what it estimates, and the population that it writes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.raters import fit
from textenv.errors import TextenvError, UsageError


def run(*words: object) -> str:
    console = Console(file=io.StringIO(), width=150)
    assert fit.run([str(word) for word in words], console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def file(tmp_path: Path, label_pool: Callable[..., Any]) -> Path:
    path = tmp_path / "labels.parquet"
    label_pool((0.95, 0.8, 0.5, 0.1), 100, 0).save(path)
    return path


def test_the_raters_are_estimated_and_written(file: Path) -> None:
    text = run(file, "--rows", 3)
    assert "400 answers of 4 raters to 100 items" in text
    assert "log-odds for what is shown first" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("rater-")]
    assert [row[0] for row in rows] == ["rater-3", "rater-2", "rater-1"]
    assert float(rows[0][1]) < 0 < float(rows[2][1])
    assert "and 1 more" in text
    population = json.loads(file.with_name("labels-raters.json").read_text(encoding="utf-8"))
    assert population["name"] == "labels-raters"
    assert population["raters"] == len(population["groups"]) == 4
    assert population["groups"]["rater-0"]["rationality"] > population["groups"]["rater-1"]["rationality"]
    assert "adversary" in population["groups"]["rater-3"]
    assert "adversary" not in population["groups"]["rater-0"]


def test_known_utilities_are_used(file: Path, label_pool: Callable[..., Any]) -> None:
    assert run(file, "--rows", 3) != run(file, "--known-utilities", "--rows", 3)


def test_nothing_is_written_where_something_is_wrong(
    file: Path, tmp_path: Path, labels_from: Callable[..., Any]
) -> None:
    with pytest.raises(UsageError, match=r"raters\.json"):
        run(file, "--out", tmp_path / "raters.toml")
    with pytest.raises(UsageError, match="--rows"):
        run(file, "--rows", -1)
    labels_from([0, 1], ["ann", "bob"], [1, 0]).save(file)
    with pytest.raises(TextenvError, match="no two are about one item"):
        run(file)
    with pytest.raises(TextenvError, match="there is no labels file"):
        run(tmp_path / "none.parquet")
    assert list(tmp_path.iterdir()) == [file]
