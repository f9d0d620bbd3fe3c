"""The command `textenv check`, and agents of one's own in `textenv train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import cli

AGENTS = '''
from dataclasses import dataclass
from agents.a2c import A2C, A2CConfig

@dataclass(frozen=True)
class Config(A2CConfig):
    n_prompts: int = 8
    patience: float = 0.5
    """How long it waits."""

class Mine(A2C):
    config_class = Config

class Broken(Mine):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        raise LookupError("lost")

@dataclass(frozen=True)
class Clashing(A2CConfig):
    beta: float = 0.1
    threads: int = 4

class Clash(A2C):
    config_class = Clashing

class Silent:
    """Chooses, but does not tell how likely what was."""
    config_class = Config

    def __init__(self, env, config, seed, data=None):
        self._inner = Mine(env, config, seed)

    num_timesteps = property(lambda self: self._inner.num_timesteps)

    def learn(self, total, callback=None):
        self._inner.learn(total, callback and (lambda _, metrics: callback(self, metrics)))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self._inner.predict(observation, deterministic=deterministic)

    def save(self, path):
        self._inner.save(path)

    @classmethod
    def load(cls, path, env):
        agent = cls(env, Config(), 0)
        agent._inner = Mine.load(path, env)
        return agent
'''
SHORT = "--reward gold --tokens 100 --test-prompts 2 --test-samples 4 --threads 1 --out run".split()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "checked_agents.py").write_text(AGENTS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("checked_agents", None)
    torch.use_deterministic_algorithms(False)


def test_a_sound_agent_passes_with_a_line_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "checked_agents:Mine", "--tokens", "1500", "--learning-rate", "2e-3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("✓ ") for line in lines[:-1])
    assert lines[-1] == f"{len(lines) - 1} passed, 0 failed, 0 skipped"


def test_a_broken_agent_is_told_in_words_with_the_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Tokens that are too few fail as well.
    assert cli.main(["check", "checked_agents:Broken", "--tokens", "1"]) == 1
    out = capsys.readouterr().out
    assert f"✗ predict: the agent raised an error: LookupError: lost ({folder}/checked_agents.py, line 16)" in out
    assert "✗ improves: after " in out
    assert out.splitlines()[-1] == "9 passed, 2 failed, 0 skipped"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pp0", "unknown agent 'pp0'. Did you mean 'ppo'?"),
        ("checked_agents:Gone", "'checked_agents:Gone' could not be imported"),
        ("math:pi", "'math:pi' is a float, expected the class of an agent"),
        ("json:JSONDecoder", "is no agent: it lacks learn, predict, save, load"),
        ("ppo --tokens 0", "--tokens is 0, expected 1 or more"),
        ("--seed 1", None),
        ("checked_agents:Mine --patience much", None),
    ],
)
def test_what_cannot_be_tried_is_wrong_usage(
    words: str, message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(["check", *words.split()])
    except SystemExit as end:  # As tyro ends where flags are wrong.
        code = end.code
    assert code == 2
    error = capsys.readouterr().err
    assert message is None or message in error


def test_the_settings_of_an_agent_of_ones_own_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--agent", "checked_agents:Mine", "--help"])
    assert "How long it waits." in capsys.readouterr().out
    train = ["train", "--task", "exact", "--agent", "checked_agents:Mine", "--patience", "0.75", *SHORT]
    assert cli.main(train) == 0
    description = json.loads(Path("run/config.json").read_text())
    assert description["config"]["patience"] == 0.75
    assert "checked_agents.py (--agent)" in description["inputs"]


def test_a_setting_with_the_name_of_another_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--agent", "checked_agents:Clash"]) == 2
    assert "Clashing of the agent 'checked_agents:Clash' has beta, threads, which is the name of another flag" in (
        capsys.readouterr().err
    )


def test_an_agent_that_does_not_tell_its_distribution_gets_its_scores_only() -> None:
    assert cli.main(["train", "--task", "exact", "--agent", "checked_agents:Silent", *SHORT]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0 < summary["gold_after"] < 1
    assert summary["reward_after"] > 0
    assert all(summary[name] is None for name in ("kl", "objective", "share", "reward_share"))
    assert Path("run/report.html").stat().st_size > 0
