"""`textenv play`: answers to typed prompts and the task's, each token with its reward, whole or step by step."""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import cli, play, train, walk
from textenv import models
from textenv.errors import UsageError
from textenv.rewards import GoldReward
from textenv.tasks.concierge import Concierge

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
    return play.load(play.PlayConfig(run))


def shown(*words: str, **options: Any) -> str:
    file = io.StringIO()
    assert play.main(words, Console(file=file, width=200, **options)) == 0
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
    """They are those of `score`, to which the policy's own log-probabilities are given."""
    beta = player.walker.env.beta
    for seed in range(5):
        prompt = player.task.fixed_prompts("test", 3)[2]
        before, after = (answer.steps for answer in play.answers(player, prompt, np.random.default_rng(seed)))
        # The reference does not differ from itself, so it is paid its score at the last token only.
        assert [step.reward for step in before[:-1]] == pytest.approx([0.0] * (len(before) - 1), abs=1e-4)
        assert before[-1].reward == pytest.approx(before[-1].info["score"], abs=1e-4)
        for step in after[:-1]:
            assert step.reward == pytest.approx(-beta * (step.logprob - step.reference_logprob), abs=1e-5)
        assert len(after) <= player.task.response_length
        assert 0 <= after[-1].info["gold"] <= 1


def test_both_take_the_same_tokens_while_they_agree(player: play.Player) -> None:
    same = player._replace(policies={"before": player.policies["before"], "after": player.policies["before"]})
    for prompt in player.task.fixed_prompts("test", 4):
        before, after = play.answers(same, prompt, np.random.default_rng(1))
        assert [step.token for step in before.steps] == [step.token for step in after.steps]


def test_a_prompt_that_cannot_be_read_is_explained_before_any_is_answered(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["play", str(run), "--prompt", "d e a", "--prompt", "a hello b"]) == 2
    out, err = capsys.readouterr()
    assert "does not know 'hello'" in err
    assert out == ""


def test_a_concierge_prompt_typed_by_hand_is_judged_as_the_tasks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    task, reference = Concierge(), models.load("concierge")
    policies = dict.fromkeys(("before", "after"), walk.of_model(reference))
    player = play.Player(task, walk.Walker(task, reference, GoldReward(task), task.beta), policies)
    monkeypatch.setattr(play, "load", lambda _: player)
    own = shown("run", "--count", "2")
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


def test_a_walk_shows_each_token_without_a_run() -> None:
    lines = shown("--agent", "random", "--task", "exact", "--step", "--prompt", "d e a", "--seed", "3").splitlines()
    assert lines[0] == "d e a"
    assert lines[1].split() == ["random", "reward", "log", "π", "log", "π_ref"]
    steps = [line.split() for line in lines[2:-2]]
    assert [step[0] for step in steps] == [str(number) for number in range(1, len(steps) + 1)]
    # Every one of the 7 tokens is as likely as any other: log 1/7.
    assert {step[3] for step in steps} == {"-1.946"}
    end, text = lines[-2:]
    total = sum(float(step[2]) for step in steps)
    assert float(end.split("sum of rewards")[1]) == pytest.approx(total, abs=0.01)
    assert "gold 0." in end
    assert text.split()[:3] == ["d", "e", "a"]
    assert text.endswith("[eos]" if "end eos" in end else "[length]")


def test_walks_differ_by_their_seed_and_the_reference_is_paid_at_the_end_only() -> None:
    walks = [shown("--agent", "reference", "--task", "exact", "--step", "--seed", str(seed)) for seed in (0, 0, 1, 2)]
    assert walks[0] == walks[1]
    assert len(set(walks)) == 3
    steps = [line.split() for line in walks[0].splitlines()[2:-2]]
    assert {step[2].lstrip("+-") for step in steps[:-1]} <= {"0.000"}
    assert all(step[3] == step[4] for step in steps)


def test_a_run_is_walked_through_too(run: Path) -> None:
    lines = shown(str(run), "--prompt", "c", "--step").splitlines()
    assert [line.split()[0] for line in lines if "π_ref" in line] == ["before", "after"]
    assert sum("sum of rewards" in line for line in lines) == 2


def test_prompts_of_ones_own_are_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("where is the inn ?\nthe castle\na mill\n")
    (tmp_path / "played.py").write_text("def words(_, responses):\n    return [len(x.split()) for x in responses]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--prompts", str(tmp_path / "mine.txt"), "--model", "concierge", "--agent", "reference"]
    with pytest.raises(UsageError, match="has no gold score; give another --reward"):
        play.main(words)
    lines = shown(*words, "--reward", "played:words", "--step", "--prompt", "where is the inn ?").splitlines()
    names = [line.split()[1] for line in lines[2:-2]]
    spoken = [name for name in names if not name.startswith("<")]
    assert f"reward +{len(spoken)}.00" in lines[-2]
    assert "gold" not in lines[-2]
    assert lines[-1].replace("<", " <").split()[:-1] == ["where", "is", "the", "inn", "?", *names]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "there is nobody to answer; give the folder of a run, or --agent random"),
        ("--task exact", "there is nobody to answer"),
        ("--agent rndom", "unknown agent 'rndom'. Did you mean 'random'? Known: random, reference"),
        ("--agent ppo", "An agent that learns answers with the folder of its run"),
        ("--agent random --task exakt", "unknown task 'exakt'. Did you mean 'exact'?"),
        ("--agent random --reward learned --task exact", "a learned reward is that of a run"),
        ("runs/some --agent random --task exact", "leave --agent, --task out"),
        ("--agent random --task exact --count -1", "neither can be below 0"),
    ],
)
def test_what_cannot_be_played_is_explained(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", *words.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
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


@pytest.mark.parametrize("end", ["q", None])
def test_a_person_at_a_terminal_steps_and_quits(monkeypatch: pytest.MonkeyPatch, end: str | None) -> None:
    """Two tokens with Enter, then q or the end of the input: the walk is not shown to its end."""
    typed = iter(["", "", end])

    def answer(_prompt: str = "") -> str:
        word = next(typed)
        if word is None:
            raise EOFError
        return word

    monkeypatch.setattr("builtins.input", answer)
    words = ["--agent", "random", "--task", "exact", "--prompt", "d e a", "--prompt", "c", "--step"]
    whole = shown(*words)
    assert whole.count("-1.946") > 6  # five tokens of the first prompt, and those of the second
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert (shown(*words)).count("-1.946") == 3
    assert list(typed) == []


def test_a_run_is_asked_and_stepped_through(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["nonsense", "c", "q"])
    monkeypatch.setattr("builtins.input", lambda _="": next(typed))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    text = shown(str(run), "--step", "--seed", "2")
    assert "does not know 'nonsense'" in text
    assert "(Enter goes on, q quits)" in text
    assert "sum of rewards" not in text
