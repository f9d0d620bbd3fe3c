"""The smallest example, run as its docstring says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks

SOURCE = (Path(benchmarks.__file__).parent / "smallest_loop.py").read_text(encoding="utf-8")


def test_it_is_written_against_gymnasium_alone_in_under_60_lines():
    tree = ast.parse(SOURCE)
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imported} == {"gymnasium", "torch", "typing"}
    assert len(SOURCE.splitlines()) < 60


@pytest.mark.slow
def test_it_learns():
    run = subprocess.run([sys.executable, "-m", "benchmarks.smallest_loop"], check=True, capture_output=True, text=True)
    returns = [float(number) for number in re.findall(r"mean return (-?[\d.]+)", run.stdout)]
    assert len(returns) == 10
    assert returns[0] < 2
    # More than the reference is worth, from a network that knew nothing.
    assert sum(returns[-3:]) / 3 > 2.8
