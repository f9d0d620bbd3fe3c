"""Imports run down the four floors only: benchmarks, agents and reward_models, textenv."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "benchmarks": {"benchmarks", "agents", "reward_models", "textenv"},
    "agents": {"agents", "textenv"},
    "reward_models": {"reward_models", "textenv"},
    "textenv": {"textenv"},
}
EXCEPTIONS = {
    # The one module that runs the whole RLHF loop needs both the learners and the judges.
    ROOT / "agents" / "rlhf.py": {"reward_models"},
    # The command's way in checks that the floors above are ours, and then calls the topmost by name.
    ROOT / "textenv" / "command.py": {"benchmarks"},
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level packages of every import, those by name, inside functions and in type-checking blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (word.value.partition(".")[0] for word in node.args if isinstance(word, ast.Constant))
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield (node.module or "").partition(".")[0]


def wrong_imports(source: str, floor: str, more: Set[str] = frozenset()) -> set[str]:
    return set(imported(ast.parse(source))) & BELOW.keys() - BELOW[floor] - more


@pytest.mark.parametrize("floor", BELOW)
def test_no_import_runs_up(floor: str) -> None:
    files = sorted((ROOT / floor).rglob("*.py"))
    assert files
    wrong = {
        str(file.relative_to(ROOT)): found
        for file in files
        if (found := wrong_imports(file.read_text(encoding="utf-8"), floor, EXCEPTIONS.get(file, frozenset())))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("floor", "source", "wrong"),
    [
        ("textenv", "import agents", {"agents"}),
        ("textenv", "def f():\n    from benchmarks.cli import main", {"benchmarks"}),
        ("textenv", "from textenv import kl\nimport torch", set()),
        ("agents", "from reward_models.raters import Rater", {"reward_models"}),
        ("reward_models", "if TYPE_CHECKING:\n    import agents.ppo", {"agents"}),
        ("benchmarks", "import agents, reward_models, textenv", set()),
        ("textenv", "importlib.import_module('benchmarks.cli').main()", {"benchmarks"}),
        ("agents", "__import__('reward_models')", {"reward_models"}),
    ],
)
def test_the_check_sees_imports_wherever_they_hide(floor: str, source: str, wrong: set[str]) -> None:
    assert wrong_imports(source, floor) == wrong


def test_the_contract_of_import_linter_is_kept() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 kept, 0 broken" in run.stdout
