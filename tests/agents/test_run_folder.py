"""The run folder: what it keeps, what it discards and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.run_folder import RunFolder, read_description
from textenv.errors import DiskError, TextenvError, UsageError


def make(path: Path) -> RunFolder:
    return RunFolder.create(path, {"task": "exact"}, threads=1, created="2026-01-01T00:00:00")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with make(tmp_path / "run") as made:
        yield made


def save(folder: RunFolder, timesteps: int, rows: list[dict[str, float]]) -> None:
    def write(checkpoint: Path) -> None:
        checkpoint.mkdir()
        (checkpoint / "agent.txt").write_text(str(timesteps))

    folder.save_checkpoint(timesteps, write, rows)


def test_a_new_folder_says_what_it_was_made_under(tmp_path: Path) -> None:
    with make(tmp_path / "runs" / "a") as folder:
        assert {"version", "torch", "threads", "dtype", "created", "config"} <= folder.description.keys()
        assert folder.config == {"task": "exact"}
        assert folder.summary is None
    with RunFolder.open(tmp_path / "runs" / "a") as folder:
        assert folder.threads == 1


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("months of work")
    with pytest.raises(UsageError, match="not an empty folder"):
        make(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "months of work"


def test_an_empty_folder_may_be_used_where_one_stands_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with make(Path()):
        # The folder is filled, not replaced: whoever stands in it would be left in a deleted one.
        assert (tmp_path / "config.json").samefile("config.json")


def test_what_a_run_killed_in_its_first_moment_leaves_is_no_obstacle(tmp_path: Path) -> None:
    for name in (".lock", ".config.1.tmp.json"):
        (tmp_path / name).touch()
    with make(tmp_path) as folder:
        assert folder.config == {"task": "exact"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot write /proc/nowhere/run"):
        make(Path("/proc/nowhere/run"))
    with make(tmp_path / "run"):
        (tmp_path / "run" / ".lock").unlink()
        (tmp_path / "run" / ".lock").mkdir()  # Stands for a folder that is read-only; root may write to any.
    with pytest.raises(DiskError, match=f"cannot write {tmp_path / 'run'}"):
        RunFolder.open(tmp_path / "run")


@pytest.mark.parametrize("content", [None, "no json", '{"a": 1}', "[]", "CONFIG", "THREADS"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        good = {"version": "0", "torch": "0", "threads": 1, "dtype": "float32", "config": {}}
        damaged = {"CONFIG": json.dumps(good | {"config": []}), "THREADS": json.dumps(good | {"threads": "one"})}
        (tmp_path / "config.json").write_text(damaged.get(content, content))
    with pytest.raises(UsageError, match="run folder"):
        RunFolder.open(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        RunFolder.open(tmp_path / "nowhere")


@pytest.mark.parametrize(("key", "value"), [("version", "0.0.0"), ("torch", "1.0"), ("dtype", "float64")])
def test_other_versions_are_refused_and_named(tmp_path: Path, key: str, value: str) -> None:
    with make(tmp_path / "run"):
        pass
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(UsageError, match=f"{key} {value}"):
        RunFolder.open(tmp_path / "run")
    assert read_description(tmp_path / "run")[key] == value


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with make(tmp_path / "run"), pytest.raises(TextenvError, match="another process"):
        RunFolder.open(tmp_path / "run")
    with RunFolder.open(tmp_path / "run"):
        pass


def test_a_stage_is_finished_once_it_is_marked(folder: RunFolder) -> None:
    assert not folder.finished("compare")
    folder.finish_stage("compare", seconds=1.5)
    assert folder.finished("compare")
    costs = folder.costs()
    assert costs["seconds_compare"] == costs["seconds"] == 1.5
    assert costs["peak_rss_mb"] > 10


def test_the_last_two_checkpoints_are_kept_and_all_their_rows(folder: RunFolder) -> None:
    for step in (100, 200, 300):
        save(folder, step, [{"timesteps": step - 50, "kl": 0.5}, {"timesteps": step, "kl": 1.0}])
    assert [path.name for path in folder.checkpoints()] == ["step-000000200", "step-000000300"]
    assert [row["timesteps"] for row in folder.metrics()] == [50, 100, 150, 200, 250, 300]
    newest = folder.latest_checkpoint()
    assert newest is not None
    assert (newest / "agent.txt").read_text() == "300"


def test_a_part_without_its_checkpoint_is_discarded(folder: RunFolder) -> None:
    save(folder, 100, [{"timesteps": 100}])
    folder.write_rows("metrics/part-000000200.parquet", [{"timesteps": 200}])
    assert folder.latest_checkpoint() is not None
    assert folder.metrics() == [{"timesteps": 100}]


def test_without_a_checkpoint_every_part_is_discarded(folder: RunFolder) -> None:
    folder.write_rows("metrics/part-000000200.parquet", [{"timesteps": 200}])
    assert folder.latest_checkpoint() is None
    assert folder.metrics() == []


def test_rows_with_different_columns_are_kept_together(folder: RunFolder) -> None:
    save(folder, 2, [{"timesteps": 1}, {"timesteps": 2, "gold": 0.5}])
    assert folder.metrics() == [{"timesteps": 1, "gold": None}, {"timesteps": 2, "gold": 0.5}]


def test_an_interrupted_checkpoint_is_not_taken_for_one(folder: RunFolder) -> None:
    save(folder, 1, [])

    def dies(checkpoint: Path) -> None:
        checkpoint.mkdir()
        (checkpoint / "agent.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.save_checkpoint(2, dies, [])
    assert [path.name for path in folder.checkpoints()] == ["step-000000001"]
    save(folder, 2, [])
    newest = folder.latest_checkpoint()
    assert newest is not None
    assert (newest / "agent.txt").read_text() == "2"


def test_nan_is_not_written_as_json(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("summary.json", {"kl": float("nan")})
    assert folder.summary is None


def test_a_run_goes_on_with_the_same_inputs_only(tmp_path: Path) -> None:
    inputs = {"my.txt (--prompts)": "1", "model.safetensors (--model)": "2"}
    with RunFolder.create(tmp_path, {}, threads=1, created="2026-01-01", inputs=inputs):
        pass
    with RunFolder.open(tmp_path) as folder:
        folder.check_inputs(inputs)
        with pytest.raises(UsageError, match=r"other content of my\.txt \(--prompts\), so"):
            folder.check_inputs(inputs | {"my.txt (--prompts)": "3"})
        with pytest.raises(UsageError, match=r"other content of model\.safetensors \(--model\), so"):
            folder.check_inputs({"my.txt (--prompts)": "1"})


@pytest.mark.parametrize("content", [b"", b'{"kl": 1', b"\xff", b"[1]"])
def test_a_damaged_file_is_named(folder: RunFolder, content: bytes) -> None:
    save(folder, 1, [{"timesteps": 1}])
    folder.finish_stage("compare", seconds=1)
    readers: dict[str, Callable[[], object]] = {
        "summary.json": lambda: folder.summary,
        "stages/compare.json": folder.costs,
        "metrics/part-000000001.parquet": folder.metrics,
        "samples.parquet": lambda: folder.read_rows("samples.parquet"),
    }
    for name, read in readers.items():
        (folder.path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{folder.path / name} is missing or damaged"):
            read()


def test_a_missing_table_is_named(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"samples\.parquet is missing"):
        folder.read_rows("samples.parquet")
