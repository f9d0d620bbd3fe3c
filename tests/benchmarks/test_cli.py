"""The command: verbs, exit codes, one clear message, and the check that the packages are ours."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.listing import LISTS, class_line

ROOT = Path(cli.__file__).parents[1]


def run_python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own that finds packages in `path` before all others."""
    before = f"import sys; sys.path[:0] = {[str(folder) for folder in path]!r}\n"
    return subprocess.run([sys.executable, "-I", "-c", before + code], capture_output=True, text=True)


def command(*words: str) -> str:
    return f"from benchmarks.cli import main; sys.exit(main({list(words)!r}))"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_verb(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in cli.VERBS)


def test_no_verb_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: textenv VERB" in capsys.readouterr().err


def test_an_unknown_verb_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == (
        "textenv: unknown verb 'trian'. Did you mean 'train'? Known: train, list, play.\n"
    )


@pytest.mark.parametrize("words", [("--help",), ("list",), ("list", "--help")])
def test_help_and_lists_import_nothing_heavy(words: tuple[str, ...]) -> None:
    heavy = "print(sorted({'torch', 'transformers', 'matplotlib', 'scipy', 'pyarrow'} & sys.modules.keys()))"
    code = f"from benchmarks.cli import main\ntry: main({list(words)!r})\nexcept SystemExit: pass\n{heavy}"
    run = run_python(code, ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_list_has_a_line_for_everything_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for kind, known in LISTS.items():
        assert kind in lines
        for name, line in known().items():
            assert line, f"{kind}: {name} has no line"
            assert any(shown.split() == [name, *line.split()] for shown in lines)


def test_one_kind_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "raters"]) == 0
    assert capsys.readouterr().out.startswith("raters\n  oracle")


def test_a_flag_that_is_not_known_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["list", "--colour", "red"])
    assert end.value.code == 2
    assert "--colour" in capsys.readouterr().err


def test_the_line_of_a_class_is_read_from_its_source() -> None:
    from textenv.tasks.exact import Exact

    assert class_line("textenv.tasks.exact:Exact") == Exact.description
    assert class_line("textenv.errors:UsageError") == "The request itself was wrong: a bad name, value or file."


def test_whoever_stops_reading_gets_no_traceback() -> None:
    pipe = subprocess.run(
        f"{sys.executable} -c 'from benchmarks.cli import main; import sys; sys.exit(main([\"list\"]))' | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert pipe.stderr == ""


def test_another_package_of_the_same_name_on_the_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise RuntimeError('foreign code ran')")
    run = run_python(command("list", "agents"), tmp_path, ROOT)
    assert run.returncode == 1
    assert f"{tmp_path / 'agents'} hides {ROOT / 'agents'}" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_distribution_that_overwrote_ours_is_named(tmp_path: Path) -> None:
    record = ""
    for name in ("textenv", "reward_models", "agents", "benchmarks"):
        (tmp_path / name).mkdir()
        content = (ROOT / name / "__init__.py").read_bytes()
        (tmp_path / name / "__init__.py").write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name}/__init__.py,sha256={digest},{len(content)}\n"
    for file in ("cli.py", "shadowing.py"):
        shutil.copy(ROOT / "benchmarks" / file, tmp_path / "benchmarks" / file)
    for distribution, files in (("textenv", record), ("other_agents", "agents/__init__.py,,\n")):
        folder = tmp_path / f"{distribution}-9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9\n")
        (folder / "RECORD").write_text(files)
    assert run_python(command("--help"), tmp_path).returncode == 0
    (tmp_path / "agents" / "__init__.py").write_text("print('other agents')")
    run = run_python(command("--help"), tmp_path)
    assert run.returncode == 1
    assert f"{tmp_path / 'agents' / '__init__.py'} was overwritten by the distribution other_agents" in run.stderr
    assert "other agents\n" not in run.stdout


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for file in ("__init__.py", "cli.py", "shadowing.py"):
        shutil.copy(ROOT / "benchmarks" / file, tmp_path / "benchmarks" / file)
    (tmp_path / "textenv").mkdir()
    (tmp_path / "textenv" / "__init__.py").touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    run = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks.cli", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "package 'reward_models' is missing" in run.stderr
