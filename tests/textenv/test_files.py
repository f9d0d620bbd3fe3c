"""Atomic writes: whole or not at all, also when the disk is full or the process is killed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from textenv.errors import DiskError, TextenvError
from textenv.files import atomic_folder, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "a.txt"
    write_atomically(target, lambda file: file.write_text("one"))
    write_atomically(target, lambda file: file.write_text("two"))
    assert target.read_text() == "two"
    assert names(target.parent) == ["a.txt"]


def test_the_temporary_file_has_the_same_suffix(tmp_path: Path) -> None:
    seen: list[str] = []
    write_atomically(tmp_path / "a.b.parquet", lambda file: (seen.append(file.suffix), file.touch()))
    assert seen == [".parquet"]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fails(file: Path) -> None:
        file.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(target, fails)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_text("old")

    def interrupted() -> None:
        with atomic_folder(target) as folder:
            (folder / "weights").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (target / "sub" / "weights").read_text() == "old"
    assert names(tmp_path) == ["checkpoint"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    for name in ("first", "second"):
        with atomic_folder(target) as folder:
            (folder / name).touch()
    assert names(target) == ["second"]
    assert names(tmp_path) == ["checkpoint"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "thesis.txt"
    target.write_text("years of work")
    with pytest.raises(TextenvError, match="file is in the way"), atomic_folder(target):
        pass
    assert target.read_text() == "years of work"


def test_the_current_folder_may_be_written_by_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path()) as folder:
        (folder / "weights").touch()
    assert names(tmp_path / "here") == ["weights"]


def test_a_place_that_no_file_system_gives_is_explained() -> None:
    with pytest.raises(DiskError, match=r"cannot write /proc/nowhere/a: No such file"):
        write_atomically(Path("/proc/nowhere/a"), Path.touch)


def test_a_place_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(TextenvError, match="Choose a place"):
        write_atomically(tmp_path / "a" / "b", Path.touch)


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    """A file system of 256 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_the_earlier_checkpoint(small_disk: Path) -> None:
    target = small_disk / "checkpoint"
    with atomic_folder(target) as folder:
        save_file({"w": torch.zeros(1000)}, folder / "model.safetensors")
    before = (target / "model.safetensors").read_bytes()

    def too_much() -> None:
        with atomic_folder(target) as folder:
            save_file({"w": torch.zeros(1_000_000)}, folder / "model.safetensors")

    with pytest.raises(TextenvError, match=r"checkpoint: No space left"):
        too_much()
    with pytest.raises(TextenvError, match=r"rows\.parquet: No space left"):
        write_atomically(
            small_disk / "rows.parquet",
            lambda file: pq.write_table(pa.table({"x": np.random.default_rng(0).random(100_000)}), file),
        )
    assert names(small_disk) == ["checkpoint"]
    assert (target / "model.safetensors").read_bytes() == before


def test_a_file_beyond_the_size_limit_is_explained(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(TextenvError, match="File too large"):
            write_atomically(tmp_path / "big", lambda file: file.write_bytes(bytes(20_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from textenv.files import atomic_folder, write_atomically

def die(file):
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

target = Path(sys.argv[1])
if sys.argv[2] == "file":
    write_atomically(target, die)
else:
    with atomic_folder(target) as folder:
        die(folder / "weights")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_leaves_is_removed_by_the_next_write(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target.txt"
    run = subprocess.run([sys.executable, "-c", KILLED, target, kind], env=os.environ)
    assert run.returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(names(tmp_path)) == 1
    write_atomically(target, lambda file: file.write_text("whole"))
    assert names(tmp_path) == ["target.txt"]


def test_the_half_written_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".target.{os.getppid()}.tmp.txt"
    other.touch()
    write_atomically(tmp_path / "target.txt", Path.touch)
    assert other.exists()
