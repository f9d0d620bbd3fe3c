"""Agents, tasks, rewards and raters of others: real distributions on the path, found by their real metadata."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents import AGENTS, REWARDS, load_agent
from agents.rlhf import RLHFConfig, prepare
from agents.setting import load_reward
from benchmarks import cli
from reward_models.raters import RATERS, load_rater
from textenv import models, plugins, tasks
from textenv.errors import UsageError

SOURCE = '''
from agents.a2c import A2C
from reward_models.raters import Rater
from textenv.tasks.exact import Exact

class MyAgent(A2C):
    """Learns nothing new."""

class MyTask(Exact):
    description = "exact, once more"
    name = "mine"

def my_reward(prompts, responses):
    """The longer the better."""
    return [float(len(response)) for response in responses]

class Scorer:
    def __call__(self, prompts, responses):
        return [0.0] * len(responses)

my_rater = Rater("my rater", rationality=1.0)
'''
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with one module and some entry points, as pip would leave it."""

    def installed(name: str, source: str = SOURCE, /, **groups: str) -> Path:
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "".join(f"[textenv.{group}]\n{lines}\n" for group, lines in groups.items())
        )
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return site / f"{name}.py"

    return installed


@pytest.fixture
def tiny(install: Install) -> Path:
    return install(
        "tiny_dist",
        agents="mine = tiny_dist:MyAgent",
        tasks="mine = tiny_dist:MyTask",
        rewards="mine = tiny_dist:my_reward",
        raters="mine = tiny_dist:my_rater",
    )


def test_all_four_are_found_by_name(tiny: Path) -> None:
    assert load_agent("mine").__name__ == "MyAgent"
    task: Any = tasks.load("mine")
    assert type(task).__name__ == "MyTask"
    assert load_rater("mine").name == "my rater"
    assert load_reward("mine", task, models.load("exact")).name == "my_reward"


def test_a_run_takes_them_and_depends_on_their_source(tiny: Path) -> None:
    names = RLHFConfig(task="mine", agent="mine", rater="mine", labels=4, tokens=20)
    learned = prepare(names).inputs()
    assert {f"tiny_dist.py ({flag})" for flag in ("--task", "--agent", "--rater")} <= learned.keys()
    rewarded = prepare(RLHFConfig(task="mine", agent="mine", reward="mine", tokens=20)).inputs()
    assert "tiny_dist.py (--reward)" in rewarded
    assert "tiny_dist.py (--rater)" not in rewarded, "nobody is asked"
    before = rewarded["tiny_dist.py (--agent)"]
    tiny.write_text(SOURCE + "# changed\n")
    assert prepare(names).inputs()["tiny_dist.py (--agent)"] != before


def test_the_list_marks_whose_they_are(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "mine Learns nothing new. (from tiny_dist)" in lines
    assert "mine exact, once more (from tiny_dist)" in lines
    assert "mine The longer the better. (from tiny_dist)" in lines
    assert "mine (from tiny_dist)" in lines, "an instance has no line of its own"
    assert "tiny_dist" not in sys.modules, "to list is not to import"


@pytest.mark.parametrize(
    ("kind", "load"),
    [("agent", load_agent), ("task", tasks.load), ("rater", load_rater),
     ("reward", lambda name: prepare(RLHFConfig(task="exact", reward=name)))],
)  # fmt: skip
def test_an_unknown_name_lists_ours_and_theirs_with_the_nearest_first(
    kind: str, load: Callable[[str], object], tiny: Path
) -> None:
    with pytest.raises(UsageError, match=rf"unknown {kind} 'mina'\. Did you mean 'mine'\? Known: mine, \w+"):
        load("mina")


def test_names_of_ours_stay_ours(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("greedy_dist", agents="ppo = greedy_dist:MyAgent")
    assert load_agent("ppo").__module__ == "agents.ppo"
    assert load_agent("greedy_dist:MyAgent").__name__ == "MyAgent"
    cli.main(["list", "agents"])
    listed = re.sub(" +", " ", capsys.readouterr().out)
    assert "greedy_dist:MyAgent Learns nothing new. (from greedy_dist; its name ppo is taken)" in listed


def test_a_name_that_two_bring_is_refused_with_both(install: Install) -> None:
    install("one_dist", raters="mine = one_dist:my_rater")
    install("other_dist", raters="mine = other_dist:my_rater")
    with pytest.raises(UsageError, match=r"brought by one_dist \(one_dist:my_rater\) and other_dist \(other_dist:my_"):
        load_rater("mine")
    assert load_rater("other_dist:my_rater").name == "my rater"


@pytest.mark.parametrize(
    ("target", "source", "error", "listed"),
    [
        ("gone_module:X", "", "No module named 'gone_module'", "broken: there is no module 'gone_module'"),
        ("broken_dist:Gone", "", "has no attribute 'Gone'", "(from broken_dist)"),
        ("broken_dist:X", "x = undefined", r"NameError.*broken_dist\.py, line 1", "(from broken_dist)"),
        ("broken_dist:X", "def f(:", "SyntaxError", "broken: "),
        ("broken_dist", "", "expected is module:attribute", "(from broken_dist)"),
    ],
)
def test_a_broken_one_is_an_error_only_where_it_is_used(
    target: str, source: str, error: str, listed: str, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("broken_dist", source, agents=f"broken = {target}")
    assert load_agent("ppo").__module__ == "agents.ppo"
    assert cli.main(["list", "agents"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["broken"])
    assert listed in line
    with pytest.raises(
        UsageError, match=f"agent 'broken' that the distribution broken_dist brings is broken: .*{error}"
    ):
        load_agent("broken")


def test_a_reward_may_be_a_class(tiny: Path) -> None:
    task: Any = tasks.load("exact")
    assert load_reward("tiny_dist:Scorer", task, models.load("exact")).name == "Scorer"


@pytest.mark.parametrize(
    ("kind", "ours"), [("agent", AGENTS), ("task", tasks.TASKS), ("reward", REWARDS), ("rater", RATERS)]
)
def test_what_is_ours_has_no_source_to_watch(kind: plugins.Kind, ours: dict[str, Any]) -> None:
    assert [plugins.source_files(kind, name, ours) for name in ours] == [[]] * len(ours)


def test_the_source_is_where_it_is_named_and_where_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "source_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("from source_pkg.agent import Mine")
    (package / "agent.py").write_text("class Mine: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = plugins.source_files("agent", "source_pkg:Mine", AGENTS)
    assert files == [package / "__init__.py", package / "agent.py"]
    assert [plugins.called(file) for file in files] == ["source_pkg/__init__.py", "source_pkg/agent.py"]


def test_the_source_of_a_module_in_a_package_is_the_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "whole_pkg"
    (package / "tools").mkdir(parents=True)
    for name in ("__init__.py", "helper.py", "tools/__init__.py", "tools/helper.py"):
        (package / name).write_text("")
    (package / "agent.py").write_text("from whole_pkg.tools import helper\n\nclass Mine: pass")
    (tmp_path / "alone.py").write_text("class Mine: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = plugins.source_files("agent", "whole_pkg.agent:Mine", AGENTS)
    assert [plugins.called(file) for file in files] == [
        f"whole_pkg/{name}" for name in ("__init__.py", "agent.py", "helper.py", "tools/__init__.py", "tools/helper.py")
    ]
    assert plugins.source_files("agent", "alone:Mine", AGENTS) == [tmp_path / "alone.py"]
