"""Agents of one's own that go wrong in every way, as a module that other processes find too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.suite.cells import Axes, Cell, cells_of

SOURCE = '''
"""Agents that go wrong."""
import os, signal, time
from agents.rloo import RLOO


class Good(RLOO):
    pass


class Fails(RLOO):
    def learn(self, total_timesteps, callback=None):
        raise RuntimeError("the agent is at a loss")


class Sleeps(RLOO):
    def learn(self, total_timesteps, callback=None):
        time.sleep(600)


class Dies(RLOO):
    def learn(self, total_timesteps, callback=None):
        os.kill(os.getpid(), signal.SIGKILL)


class Hoards(RLOO):
    def learn(self, total_timesteps, callback=None):
        hoard = b"x" * 3_000_000_000
        time.sleep(600)


class Waits(RLOO):
    """Learns once there is a file called go beside this one."""

    def learn(self, total_timesteps, callback=None):
        super().learn(total_timesteps // 2, callback)
        while not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
            time.sleep(0.1)
        super().learn(total_timesteps, callback)
'''
TINY = {"tokens": 500, "labels": 20, "test_prompts": 4, "test_samples": 4}


@pytest.fixture(scope="module")
def wrong_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "wrong_agents.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield "wrong_agents"
    sys.modules.pop("wrong_agents", None)


@pytest.fixture(scope="module")
def tiny_cells() -> Callable[..., list[Cell]]:
    """The cells of agents on Exact-v0, with next to no tokens."""

    def cells(*agents: str, rater: str = "gold", seeds: int = 1, transfer: bool = False) -> list[Cell]:
        axes = Axes(agents, ["exact"], [rater], seeds, TINY)
        return cells_of("leaderboard", axes, {"": {}}, transfer=transfer, labels_needed=False)[0]

    return cells


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results"
