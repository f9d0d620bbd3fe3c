"""`textenv play`: both models' answers to typed prompts and the task's, each token with its reward."""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import cli, play, train
from textenv import models
from textenv.tasks.concierge import Concierge
from textenv.vector_env import TextVectorEnv

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration on the smallest task."""
    folder = tmp_path_factory.mktemp("play") / "run"
    words = f"--task exact --reward gold --tokens 100 --test-prompts 2 --test-samples 2 --threads 1 --out {folder}"
    assert train.main(words.split(), Console(file=io.StringIO())) == 0
    return folder


@pytest.fixture(scope="module")
def player(run: Path) -> play.Player:
    return play.load(run)


def shown(*words: str, **options: object) -> str:
    file = io.StringIO()
    assert play.main(words, Console(file=file, width=200, **options)) == 0  # type: ignore[arg-type]
    return file.getvalue()


def test_given_prompts_are_answered_before_and_after(run: Path) -> None:
    lines = shown(str(run), "--prompt", "d e a", "--prompt", "c").splitlines()
    assert [line.split()[0] for line in lines] == ["d", "before", "after", "c", "before", "after"]
    assert all("reward " in line and "gold " in line for line in lines if line.startswith("  "))


def test_the_tasks_own_prompts_are_answered(run: Path) -> None:
    lines = shown(str(run), "--count", "4").splitlines()
    assert lines[::3] == ["c", "a b", "d e a", "c d d"]


def test_equal_seeds_give_equal_answers(run: Path) -> None:
    first, again, other = (shown(str(run), "--count", "4", "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again != other


def test_tokens_are_coloured_on_a_terminal_and_numbered_elsewhere(run: Path) -> None:
    coloured = shown(str(run), "--prompt", "c", force_terminal=True, color_system="truecolor")
    assert "\x1b[30;48;2;" in coloured
    plain = shown(str(run), "--prompt", "c")
    assert "\x1b" not in plain
    assert "<eos> (" in plain


def test_the_rewards_of_the_tokens_add_up(player: play.Player) -> None:
    for seed in range(5):
        before, after = play.answers(player, player.task.fixed_prompts("test", 3)[2], np.random.default_rng(seed))
        # The reference does not differ from itself, so it is paid its score at the last token only.
        assert before.rewards[:-1] == pytest.approx([0.0] * (len(before.rewards) - 1), abs=1e-4)
        assert before.rewards[-1] == pytest.approx(before.score, abs=1e-4)
        assert len(after.tokens) == len(after.rewards) <= player.task.response_length
        assert before.gold is not None
        assert 0 <= before.gold <= 1


def test_a_prompt_that_cannot_be_read_is_explained_before_any_is_answered(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["play", str(run), "--prompt", "d e a", "--prompt", "a hello b"]) == 2
    out, err = capsys.readouterr()
    assert "does not know 'hello'" in err
    assert out == ""


def test_a_concierge_prompt_typed_by_hand_is_judged_as_the_tasks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    task, reference = Concierge(), models.load("concierge")
    player = play.Player(task, reference, reference, TextVectorEnv(task, reference=reference, kl="full"))
    monkeypatch.setattr(play, "load", lambda _: player)
    own = shown("run", "--count", "4")
    prompts = own.splitlines()[::3]
    typed = [f"{prompt[0].upper()}{prompt[1:]}".replace(" .", ".").replace(" ?", "?") for prompt in prompts]
    assert all("<" not in prompt for prompt in prompts)
    assert shown("run", *(word for prompt in prompts for word in ("--prompt", prompt))) == own
    answered = shown("run", *(word for prompt in typed for word in ("--prompt", prompt)))
    assert [line for line in answered.splitlines() if line not in typed] == [
        line for line in own.splitlines() if line not in prompts
    ]
    assert "gold 0." in own


def test_a_folder_that_is_no_run_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run folder" in capsys.readouterr().err


def test_a_run_that_has_not_learned_yet_is_explained(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "checkpoints")
    assert cli.main(["play", str(tmp_path / "begun")]) == 2
    assert f"textenv train --resume {tmp_path / 'begun'}" in capsys.readouterr().err


def test_what_would_steer_the_terminal_is_not_printed() -> None:
    assert play._printable("a\x1b[2Jb\nc") == "a·[2Jb⏎c"


def test_a_person_at_a_terminal_is_asked(run: Path) -> None:
    terminal, inside = pty.openpty()
    os.write(terminal, b"nonsense\nd e a\n\n\x04")
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.cli", "play", run],
        stdin=inside,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    os.close(inside)
    os.close(terminal)
    assert process.returncode == 0, process.stderr
    assert "does not know 'nonsense'" in process.stdout
    assert process.stdout.count("  before ") == 2
