"""A benchmark's folder: rows are never lost, doubled or mixed with what they cannot be compared with."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agents.run_folder import version
from benchmarks.suite import frames, results_folder
from benchmarks.suite.results_folder import ResultsFolder, read
from benchmarks.suite.rows import RUNS, TABLES, Rows, schema, table_of
from textenv.errors import DiskError, TextenvError, UsageError


def rows(cell: str, status: str = "done", share: float | None = 0.5) -> Rows:
    identity = {"cell": cell, "experiment": "leaderboard", "agent": "ppo", "task": "exact", "rater": "gold",
                "variant": "", "seed": 0}  # fmt: skip
    run = identity | {"status": status, "share": share, "version": version()}
    return {"runs": [run], "curves": [identity | {"iteration": i, "kl": i / 2} for i in range(2)]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    with ResultsFolder.open(path) as folder:
        folder.note([{"command": "textenv bench", "experiment": "leaderboard"}])
        for cell in ("a", "b"):
            folder.add(cell, rows(cell))
    return path


def test_rows_are_the_same_before_and_after_they_are_folded(path: Path) -> None:
    loose = {name: read(path, name) for name in TABLES}
    with ResultsFolder.open(path):  # Folds.
        pass
    assert [file.name for file in (path / "runs").iterdir()] == ["all.parquet"]
    assert {name: read(path, name) for name in TABLES} == loose
    assert loose["runs"]["cell"].to_pylist() == ["a", "b"]
    assert len(loose["curves"]) == 4


def test_a_kill_in_the_midst_of_folding_leaves_each_row_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: read(path, name).sort_by([("cell", "ascending")]) for name in TABLES}
    folder = ResultsFolder.open(path)
    folder.add("c", rows("c"))
    calls = 0
    unlink = Path.unlink

    def killed(file: Path, missing_ok: bool = False) -> None:
        nonlocal calls
        calls += file.suffix == ".parquet"
        if calls == 2:
            raise KeyboardInterrupt
        unlink(file, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.fold()
    monkeypatch.undo()
    folder.__exit__()
    for name in TABLES:
        again = read(path, name)
        kept = again.filter(pa.compute.not_equal(again["cell"], "c")).sort_by([("cell", "ascending")])
        assert kept == before[name]
    assert sorted(read(path, "runs")["cell"].to_pylist()) == ["a", "b", "c"]


def test_a_cell_without_its_row_of_runs_has_not_been_run(path: Path) -> None:
    (path / "runs" / "b.parquet").unlink()
    with ResultsFolder.open(path) as folder:
        assert folder.statuses() == {"a": "done"}
        assert read(path, "curves")["cell"].to_pylist() == ["a", "a"]
        folder.add("b", rows("b"))
        assert folder.statuses() == {"a": "done", "b": "done"}


def test_what_a_killed_writer_left_half_written_is_no_row(path: Path) -> None:
    (path / "runs" / ".c.999999.tmp.parquet").write_bytes(b"PAR1")
    with ResultsFolder.open(path) as folder:
        assert folder.statuses() == {"a": "done", "b": "done"}


def test_a_cell_that_is_run_again_replaces_its_row(path: Path) -> None:
    with ResultsFolder.open(path) as folder:
        folder.add("a", rows("a", share=0.75))
        assert sorted(read(path, "runs")["share"].to_pylist()) == [0.5, 0.75]
        folder.fold()
    assert sorted(read(path, "runs")["share"].to_pylist()) == [0.5, 0.75]


def test_pandas_reads_the_rows_as_they_are_and_columns_tell_their_meaning(path: Path) -> None:
    frame = pd.read_parquet(path / "runs")
    assert list(frame.columns) == list(RUNS)
    assert frame["share"].tolist() == [0.5, 0.5]
    field = pq.read_schema(path / "runs" / "a.parquet").field("share")
    assert field.metadata[b"meaning"].decode() == RUNS["share"].meaning


def test_folding_goes_on_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_folder, "LOOSE_FILES", 3)
    with ResultsFolder.open(path) as folder:
        for number in range(7):
            folder.add(f"n{number}", rows(f"n{number}"))
        assert len(list((path / "runs").iterdir())) == 2
        assert len(folder.statuses()) == 9


def test_two_at_once_are_refused(path: Path) -> None:
    with ResultsFolder.open(path), pytest.raises(TextenvError, match="another `textenv bench` is writing"):
        ResultsFolder.open(path)
    ResultsFolder.open(path).__exit__()


def test_results_of_another_version_are_refused(path: Path) -> None:
    file = path / "bench.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": "0.0.1"}))
    with pytest.raises(UsageError, match=r"holds results of textenv 0\.0\.1"):
        ResultsFolder.open(path)


def test_runs_of_another_version_than_their_folders_are_refused(path: Path) -> None:
    (old,) = rows("old")["runs"]
    pq.write_table(table_of("runs", [old | {"version": "0.0.1"}]), path / "runs" / "old.parquet")
    message = rf"a folder of textenv {version()} by its bench\.json, and holds runs of textenv 0\.0\.1, which cannot"
    with pytest.raises(UsageError, match=message):
        ResultsFolder.open(path)
    with pytest.raises(UsageError, match=message):
        frames.load(path)
    (path / "runs" / "old.parquet").unlink()
    ResultsFolder.open(path).__exit__()


def test_a_file_that_lacks_a_column_is_named(path: Path) -> None:
    file = path / "runs" / "a.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["share", "kl"]), file)
    with pytest.raises(UsageError, match=r"a\.parquet lacks the column kl, share of the table runs"):
        read(path, "runs")


def test_a_column_that_was_added_is_null_in_older_files(path: Path) -> None:
    file = path / "runs" / "a.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["total_variation"]), file)
    runs = read(path, "runs")
    assert runs.schema == schema("runs")
    assert runs["total_variation"].to_pylist() == [None, None]
    with ResultsFolder.open(path):  # Folds old and new files into one.
        pass
    assert read(path, "runs") == runs


def test_columns_of_another_version_or_kind_and_damaged_files_are_named(path: Path) -> None:
    file = path / "runs" / "a.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"textenv.results": "7"}), file)
    with pytest.raises(UsageError, match="version 7 of the columns"):
        read(path, "runs")
    place = table.schema.get_field_index("share")
    pq.write_table(table.set_column(place, "share", pa.array(["much"])), file)
    with pytest.raises(UsageError, match="column of another kind"):
        read(path, "runs")
    file.write_text("no parquet")
    with pytest.raises(UsageError, match=r"a\.parquet cannot be read"):
        read(path, "runs")


def test_runs_with_other_settings_are_not_mixed_in(path: Path) -> None:
    with ResultsFolder.open(path) as folder:
        folder.check_settings("raters", {"tokens": 5})  # What was noted before says nothing of settings.
        asked = {"command": "textenv bench --tokens 5", "experiment": "raters", "settings": {"tokens": 5, "labels": 8}}
        folder.note([asked])
        folder.check_settings("raters", {"tokens": 5, "labels": 8})
        folder.check_settings("leaderboard", {"tokens": 6, "labels": 8})  # Runs of others are not compared with them.
        with pytest.raises(UsageError, match=r"were made with --tokens 5; ask for the same, or choose another --out"):
            folder.check_settings("raters", {"tokens": 6, "labels": 8})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="neither empty nor a benchmark's"):
        ResultsFolder.open(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_full_disk_loses_no_row_that_was_there(path: Path) -> None:
    with ResultsFolder.open(path) as folder:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(DiskError, match="What was written before is kept"):
                folder.add("c", rows("c"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert folder.statuses() == {"a": "done", "b": "done"}
        folder.add("c", rows("c"))
        assert len(folder.statuses()) == 3
