"""Cells are named by what their result depends on, and by nothing else."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.suite.agent_settings import parse
from benchmarks.suite.cells import Axes, Cell, cells_of, check_names
from textenv.errors import UsageError

MINE = "from agents.rloo import RLOO\n\n\nclass Mine(RLOO):\n    pass\n"


def cells(agents: str = "ppo", raters: str = "bradley-terry", seeds: int = 1, tasks: str = "exact",
          **settings: object) -> list[Cell]:  # fmt: skip
    axes = Axes(agents.split(), tasks.split(), raters.split(), seeds, settings)
    return cells_of("leaderboard", axes, {"": {}}, transfer=False, labels_needed=False)[0]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "mine_for_cells.py"
    file.write_text(MINE)
    yield file
    sys.modules.pop("mine_for_cells", None)


def test_more_seeds_and_agents_keep_the_cells_that_were_there() -> None:
    before = {cell.id for cell in cells("ppo", seeds=2)}
    after = {cell.id for cell in cells("ppo a2c", seeds=3)}
    assert len(before) == 2
    assert len(after) == 6
    assert before < after


def test_every_setting_and_rater_makes_another_cell() -> None:
    ids = [cells(), cells(tokens=7), cells(raters="oracle"), cells(raters="gold"), cells(labels=8), cells("a2c")]
    assert len({each[0].id for each in ids}) == len(ids)


def test_the_id_is_that_of_the_values_whatever_their_order() -> None:
    cell = cells()[0]
    turned = dict(reversed(json.loads(json.dumps(cell.config)).items()))
    assert dataclasses.replace(cell, config=turned).id == cell.id
    assert dataclasses.replace(cell, config=turned | {"seed": 9}).id != cell.id


def test_an_agent_of_ones_own_is_another_cell_once_its_file_has_changed(mine: Path) -> None:
    cell = cells("mine_for_cells:Mine")[0]
    assert cell.own_agent
    assert not cells("ppo")[0].own_agent
    mine.write_text(MINE + "# changed\n")
    assert cells("mine_for_cells:Mine")[0].id != cell.id


def test_so_it_is_once_a_helper_in_its_package_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pkg_for_cells"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("")
    (package / "agent.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = cells("pkg_for_cells.agent:Mine")[0]
    (package / "helper.py").write_text("# changed\n")
    assert cells("pkg_for_cells.agent:Mine")[0].id != before.id


def test_the_stages_before_learning_are_shared_by_what_they_depend_on(mine: Path) -> None:
    key = cells()[0].shared_with
    assert key is not None
    assert cells("a2c", tokens=7, test_prompts=2)[0].shared_with == key
    assert cells("mine_for_cells:Mine")[0].shared_with == key
    for other in (cells(labels=8), cells(raters="oracle"), cells(tasks="concierge"), cells(seeds=2)[1:]):
        assert other[0].shared_with not in (None, key)
    assert cells(raters="gold")[0].shared_with is None
    # An agent that learns from comparisons leaves no reward model that others could take over.
    assert cells("dpo")[0].shared_with not in (None, key)


def test_combinations_that_make_no_sense_are_left_out_with_a_line() -> None:
    axes = Axes(["ppo", "dpo", "sft"], ["exact"], ["gold", "oracle"], 1, {})
    found, left_out = cells_of("leaderboard", axes, {"": {}}, transfer=False, labels_needed=False)
    assert [(cell.config["agent"], cell.rater) for cell in found] == [
        ("ppo", "gold"), ("dpo", "gold"), ("sft", "gold"), ("ppo", "oracle"), ("dpo", "oracle")]  # fmt: skip
    assert len({cell.id for cell in found}) == len(found)
    (line,) = left_out
    assert line.startswith("sft is not run with raters: it learns from demonstrations, which the truth chooses")
    axes = Axes(["ppo", "dpo"], ["exact"], ["gold", "oracle"], 1, {})
    found, left_out = cells_of("label_budget", axes, {"8 labels": {"labels": 8}}, transfer=False, labels_needed=True)
    assert [cell.rater for cell in found] == ["oracle", "oracle"]
    assert found[0].config["labels"] == 8
    assert len(left_out) == 1


def test_settings_of_agents_are_levels_of_their_own() -> None:
    tried = parse(["ppo.learning_rate=1e-3,5e-4", "ppo.n_epochs=1"], ["ppo", "a2c"])
    axes = Axes(["ppo", "a2c"], ["exact"], ["gold"], 2, {}, tried)
    found, _ = cells_of("leaderboard", axes, {"": {}}, transfer=False, labels_needed=False)
    assert len({cell.id for cell in found}) == len(found) == 6
    names = ("ppo learning_rate=0.001, n_epochs=1", "ppo learning_rate=0.0005, n_epochs=1", "a2c")
    assert tuple(dict.fromkeys(cell.contestant for cell in found)) == tuple(axes.contestants) == names
    assert [cell.config["learning_rate"] for cell in found[:4]] == [1e-3, 1e-3, 5e-4, 5e-4]
    assert {cell.config["n_epochs"] for cell in found[:4]} == {1}
    assert found[0].identity()["settings"] == "learning_rate=0.001, n_epochs=1"


@pytest.mark.parametrize(
    ("agents", "tasks", "raters", "message"),
    [
        ("pppo", "exact", "gold", "unknown agent 'pppo'. Did you mean 'ppo'"),
        ("ppo", "exat", "gold", "unknown task 'exat'. Did you mean 'exact'"),
        ("ppo", "exact", "orakle", "unknown rater 'orakle'. Did you mean 'oracle'"),
        ("ppo ppo", "exact", "gold", "--agents names ppo twice"),
        ("ppo", "text", "gold", "no known truth"),
    ],
)
def test_names_are_checked_before_anything_is_run(agents: str, tasks: str, raters: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_names(Axes(agents.split(), tasks.split(), raters.split(), 1, {}))


def test_a_number_out_of_its_range_is_refused() -> None:
    with pytest.raises(UsageError, match="--tokens is 0"):
        cells(tokens=0)
