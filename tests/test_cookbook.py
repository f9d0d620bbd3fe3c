"""The README's cookbook as written: each file is taken out of it, and each command that it prints is run."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import cli

README = Path(__file__).parents[1] / "README.md"
SHORT = {
    "train": "--threads 1 --tokens 300 --labels 40 --test-prompts 2 --test-samples 4 --out run",
    "check": "--tokens 2000",
}
"""Flags that make a command quick, and change nothing else."""


def cookbook() -> str:
    text = README.read_text(encoding="utf-8")
    return text.partition("\n## Cookbook\n")[2].partition("\n## ")[0]


def files() -> dict[str, str]:
    """The Python files, by the name in their first line."""
    blocks = re.findall(r"^```python\n(.*?)^```$", cookbook(), re.MULTILINE | re.DOTALL)
    return {block.partition("\n")[0].removeprefix("# "): block for block in blocks}


def commands() -> list[str]:
    return re.findall(r"^    (textenv .*)$", cookbook(), re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the cookbook's files, to stand in; what commands set for their process is set back."""
    for name, source in files().items():
        (tmp_path / name).write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.use_deterministic_algorithms(False)
    for name in files():
        sys.modules.pop(name.removesuffix(".py"), None)


def run(command: str, *more: str) -> None:
    words = shlex.split(command)[1:]
    assert cli.main([*words, *more]) == 0


def summary() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(Path("run/summary.json").read_text())
    return result


def test_there_is_a_file_and_a_command_for_each_of_the_four() -> None:
    assert all(name.endswith(".py") for name in files())
    named = {flag for command in commands() for flag in re.findall(r"--(?:agent|task|reward|rater) \w+:\w+", command)}
    assert sorted(flag.split()[0] for flag in named) == ["--agent", "--rater", "--reward", "--task"]
    modules = {flag.split()[1].partition(":")[0] for flag in named}
    assert {f"{module}.py" for module in modules} == files().keys()


@pytest.mark.parametrize("command", commands())
def test_a_command_runs(command: str) -> None:
    verb = command.split()[1]
    run(command, *SHORT[verb].split())
    if verb == "train":
        assert summary()["tokens"] >= 300


@pytest.mark.slow
def test_a_command_runs_to_the_letter() -> None:
    """One of them: at full length the others would do for minutes what they do above for seconds."""
    run(next(command for command in commands() if "--agent" in command and "train" in command))


def test_a_run_with_them_goes_on_and_refuses_other_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = next(command for command in commands() if "--agent" in command)
    run(f"{command} --task exact {SHORT['train']}")
    config = json.loads(Path("run/config.json").read_text())
    assert "reinforce.py (--agent)" in config["inputs"]
    assert config["config"]["learning_rate"] == 5e-4, "the agent's own setting is a flag"
    Path("run/summary.json").unlink()
    run("textenv train --resume run")
    Path("run/summary.json").unlink()
    (folder / "reinforce.py").write_text(files()["reinforce.py"] + "\n# changed\n")
    assert cli.main(["train", "--resume", "run"]) == 2
    assert "other content of reinforce.py (--agent)" in capsys.readouterr().err


@pytest.mark.slow
def test_the_raters_bias_is_in_its_labels() -> None:
    command = next(command for command in commands() if "--rater" in command)
    longer = []
    for wanted in (command, "textenv train"):
        run(f"{wanted} {SHORT['train']} --task exact --labels 400".replace("--out run", f"--out {len(longer)}"))
        rows = pq.read_table(f"{len(longer)}/preferences.parquet").to_pylist()
        assert len({row["rater"] for row in rows}) == 1
        lengths = [(len(row["first_ids"]), len(row["second_ids"]), row["label"]) for row in rows]
        longer.append(sum((first > second) == bool(label) for first, second, label in lengths if first != second))
    assert longer[0] > 1.15 * longer[1]
