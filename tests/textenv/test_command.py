"""The way into the command: it checks that the packages are ours before it imports any but its own."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from textenv import command
from textenv.command import PACKAGES

ROOT = Path(command.__file__).parents[1]


def run(folder: Path, *words: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command of the packages in `folder`, where others in `first` are found before them."""
    path = [str(place) for place in (first, folder) if place is not None]
    code = f"import sys; sys.path[:0] = {path!r}; sys.argv = {['textenv', *words]!r}\n"
    code += "from textenv.command import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


def test_the_installed_command_starts_here() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="textenv")
    assert script.load() is command.main


def test_libraries_are_told_before_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"GOMP_SPINCOUNT": "10000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "1"}
    found: list[dict[str, str | None]] = []
    cli = types.SimpleNamespace(main=lambda: found.append({name: os.environ.get(name) for name in told}) or 0)
    monkeypatch.setitem(sys.modules, "benchmarks.cli", cli)
    for set_by_user in ({}, {"GOMP_SPINCOUNT": "5"}):
        monkeypatch.setattr(os, "environ", dict(set_by_user))
        assert command.main() == 0
    assert found == [told, told | {"GOMP_SPINCOUNT": "5"}]


def test_what_is_ours_is_run() -> None:
    done = run(ROOT, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: textenv VERB" in done.stdout
    assert run(ROOT, "trian").returncode == 2


@pytest.mark.parametrize("name", ["benchmarks", "agents", "reward_models"])
@pytest.mark.parametrize("file", ["{}/__init__.py", "{}.py"])
def test_another_package_of_the_same_name_on_the_path_is_named(tmp_path: Path, name: str, file: str) -> None:
    foreign = tmp_path / file.format(name)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("raise RuntimeError('foreign code ran')")
    done = run(ROOT, "list", "agents", first=tmp_path)
    assert done.returncode == 1
    assert f"{foreign} hides {ROOT / name}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The heads of our packages, as if installed, with another distribution that brings `agents` as well."""
    record = ""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        content = (ROOT / name / "__init__.py").read_bytes()
        (tmp_path / name / "__init__.py").write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name}/__init__.py,sha256={digest},{len(content)}\n"
    for file in ("textenv/command.py", "textenv/errors.py", "benchmarks/cli.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    for distribution, files in (("textenv", record), ("other_agents", "agents/__init__.py,,\n")):
        folder = tmp_path / f"{distribution}-9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9\n")
        (folder / "RECORD").write_text(files)
    return tmp_path


def test_a_distribution_that_overwrote_ours_is_named(copy: Path) -> None:
    assert run(copy, "--help").returncode == 0
    (copy / "agents" / "__init__.py").write_text("print('other agents')")
    done = run(copy, "--help")
    assert done.returncode == 1
    assert f"{copy / 'agents' / '__init__.py'} was overwritten by the distribution other_agents" in done.stderr
    assert "other agents\n" not in done.stdout


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "agents" else importlib.util.find_spec(name))
    assert str(command.foreign_package(ROOT)).startswith(f"textenv's package 'agents' is missing from {ROOT}; install")
