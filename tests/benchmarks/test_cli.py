"""The command: verbs, exit codes, and one clear message for whatever goes wrong."""

from __future__ import annotations

import errno
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
        "textenv: unknown verb 'trian'. Did you mean 'train'? Known: train, bench, check, list, play, raters, report.\n"
    )


HEAVY = {"torch", "transformers", "matplotlib", "scipy", "pyarrow"}

WITHOUT = dict.fromkeys(("--help", "list", "list --help", "bench --help", "report --help"), HEAVY) | {
    # Its flags are those of agents, which need torch, but neither models nor pictures.
    "train --help": {"transformers.modeling_utils", "matplotlib"}
}


@pytest.mark.parametrize(("words", "without"), WITHOUT.items(), ids=list(WITHOUT))
def test_help_and_lists_import_nothing_heavy(words: str, without: set[str]) -> None:
    heavy = f"print(sorted({without} & sys.modules.keys()))"
    code = f"from benchmarks.cli import main\ntry: main({words.split()!r})\nexcept SystemExit: pass\n{heavy}"
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


@pytest.mark.parametrize("words", ["--help", "--version", "list", "list --help", "train --help"])
def test_output_that_cannot_be_written_is_one_message(words: str) -> None:
    run = subprocess.run(
        f"{sys.executable} -m benchmarks.cli {words} > /dev/full", shell=True, capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 1
    assert run.stderr == "textenv: No space left on device: output. What was written before is kept.\n"


def test_every_error_of_the_system_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/run")

    monkeypatch.setattr("benchmarks.listing.main", fails)
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err == "textenv: Permission denied: /srv/run. What was written before is kept.\n"


def test_a_deleted_current_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f"import os, pathlib\nos.chdir({str(tmp_path / 'gone')!r})\npathlib.Path.cwd().rmdir()\n"
    run = run_python(code + command("list"), ROOT)
    assert (run.returncode, run.stderr) == (1, "textenv: the current folder has been deleted; change to another one\n")
