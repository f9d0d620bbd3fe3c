"""The command `textenv train` in processes of its own, killed and stopped for real."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.torch import load_file

from agents.a2c import A2CConfig
from agents.ppo import PPOConfig
from benchmarks.train import main, parse
from textenv.errors import DiskError, UsageError

REPOSITORY = Path(__file__).parents[2]
FLAGS = (
    "--task exact --labels 100 --tokens 6000 --n-prompts 16 --test-prompts 4 --test-samples 8 "
    "--threads 1 --checkpoint-seconds 0.2"
).split()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cli", "train", *arguments],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def wait_for(pattern: str, run: Path, process: subprocess.Popen[str], count: int = 1) -> None:
    while process.poll() is None and len(list(run.glob(pattern))) < count:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    output = finish(start(*FLAGS, "--out", str(run)))
    assert "share of the optimum" in output
    assert "report.html" in output
    return run


def result(run: Path) -> dict[str, Any]:
    """All that a run leaves, but for what clocks and memory gave."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    summary = json.loads((run / "summary.json").read_text())
    parts = sorted((run / "metrics").glob("part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return {
        "checkpoint": newest.name,
        "agent": (newest / "agent.json").read_text(),
        "weights": (newest / "state.safetensors").read_bytes(),
        "reward model": (run / "reward_model" / "model.safetensors").read_bytes(),
        "preferences": pq.read_table(run / "preferences.parquet").to_pylist(),
        "samples": pq.read_table(run / "samples.parquet").to_pylist(),
        "metrics": [{key: value for key, value in row.items() if key != "seconds"} for row in rows],
        "summary": {key: value for key, value in summary.items() if not key.startswith(("seconds", "peak_rss"))},
    }


def assert_equal_results(first: Path, second: Path) -> None:
    one, other = result(first), result(second)
    for name, value in one.items():
        assert value == other[name], f"{name} differ"


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_in_the_same_weights(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    chance = random.Random(0)
    moments = [
        ("config.json", 1),
        ("stages/reference.json", 1),
        ("stages/compare.json", 1),
        ("metrics/part-*.parquet", 1),
        ("metrics/part-*.parquet", 3),
        ("stages/reinforce.json", 1),
    ]
    killed = 0
    for pattern, count in moments:
        going_on = ("--resume", str(run), "--checkpoint-seconds", "0.2") if (run / "config.json").exists() else None
        process = start(*(going_on or (*FLAGS, "--out", str(run))))
        wait_for(pattern, run, process, count)
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3
    finish(start("--resume", str(run)))
    assert_equal_results(undisturbed, run)
    assert not list(run.glob("**/unfinished"))


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    process = start(*FLAGS, "--out", str(run))
    wait_for("metrics/part-*.parquet", run, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert f"textenv train --resume {run}" in output
    assert "Traceback" not in output
    assert not (run / "summary.json").exists()
    finish(start("--resume", str(run)))
    assert_equal_results(undisturbed, run)


@pytest.mark.slow
def test_a_finished_run_is_only_shown(undisturbed: Path) -> None:
    before = result(undisturbed)
    output = finish(start("--resume", str(undisturbed)))
    assert "is finished" in output
    assert result(undisturbed) == before


def test_bad_requests_leave_one_message_and_no_folder(tmp_path: Path) -> None:
    process = start("--task", "exat", "--out", str(tmp_path / "run"))
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "Did you mean 'exact'" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_flags_are_those_of_the_agent_that_is_asked_for() -> None:
    config, options = parse(["--agent", "a2c", "--learning-rate", "1e-4", "--seed", "3", "--reward-model.epochs", "2"])
    assert config.algorithm == A2CConfig(learning_rate=1e-4)
    assert (config.agent, config.seed, config.reward_model.epochs) == ("a2c", 3, 2)
    assert options.out is None
    config, _ = parse(["--clip-range", "0.1"])
    assert config.algorithm == PPOConfig(clip_range=0.1)


def test_a_flag_of_another_agent_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(["--agent=a2c", "--clip-range", "0.1"])
    assert exit_.value.code == 2
    assert "--clip-range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "pppo"], "Did you mean 'ppo'"),
        (["--resume", "somewhere", "--labels", "5"], "leave --labels out"),
        (["--threads", "0", "--task", "exact"], "--threads is 0"),
        (["--checkpoint-seconds", "-1", "--task", "exact"], "--checkpoint-seconds is -1"),
        (["--resume", "nowhere/at-all"], "no run folder"),
    ],
)
def test_bad_flags_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        main(arguments, Console(quiet=True))


def test_a_flag_is_the_same_with_underscores() -> None:
    _, options = parse(["--resume", "somewhere", "--checkpoint_seconds", "3"])
    assert options.checkpoint_seconds == 3
    with pytest.raises(UsageError, match="leave --labels-per-prompt out"):
        parse(["--resume", "somewhere", "--labels_per_prompt=3"])


TINY = "--task exact --agent a2c --reward gold --tokens 20 --n-prompts 2 --test-prompts 2 --test-samples 2 --threads 1"


def test_going_on_under_other_threads_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*TINY.split(), "--out", str(run)], Console(quiet=True)) == 0
    with pytest.raises(UsageError, match="fixed to --threads 1"):
        main(["--resume", str(run), "--threads", "2"])


def test_a_full_disk_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DiskError, match=rf"Free some space\. Then go on with: textenv train --resume {run}$"):
            main([*TINY.split(), "--out", str(run)], Console(quiet=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert main(["--resume", str(run)], Console(quiet=True)) == 0


def test_what_a_run_depends_on_is_checked_before_it_goes_on(tmp_path: Path) -> None:
    run, prompts = tmp_path / "run", tmp_path / "mine.txt"
    prompts.write_text("a b\nb c\nc d\n")
    (tmp_path / "counted.py").write_text("def reward(prompts, responses):\n    return list(map(len, responses))\n")
    flags = f"{TINY} --task text --prompts {prompts} --model exact --response-length 4 --reward counted:reward"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert main([*flags.split(), "--out", str(run)], Console(quiet=True)) == 0
        (run / "summary.json").unlink()
        assert main(["--resume", str(run)], Console(quiet=True)) == 0
        (run / "summary.json").unlink()
        prompts.write_text("a b\nb c\nc d\nd e\n")
        with pytest.raises(UsageError, match=r"other content of mine\.txt \(--prompts\)"):
            main(["--resume", str(run)], Console(quiet=True))


def test_a_finished_run_without_its_samples_names_the_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*TINY.split(), "--out", str(run)], Console(quiet=True)) == 0
    (run / "samples.parquet").unlink()
    with pytest.raises(UsageError, match=r"samples\.parquet is missing"):
        main(["--resume", str(run)], Console(quiet=True))


@pytest.mark.slow
def test_two_iterations_on_a_real_model(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    prompts = tmp_path / "my.txt"
    prompts.write_text("The best thing about a walk is\nMy favourite food is\nToday I feel\nThe film was\n")
    run = tmp_path / "run"
    flags = (
        f"--model smollm2 --prompts {prompts} --reward vader --response-length 8 --n-prompts 4 --group-size 2 "
        f"--n-minibatches 2 --tokens 65 --test-prompts 4 --test-samples 2 --out {run}"
    )
    output = finish(start(*flags.split()))
    assert "before" in output
    rows = [row for part in sorted((run / "metrics").glob("part-*")) for row in pq.read_table(part).to_pylist()]
    assert len(rows) == 2
    start_weights, end_weights = (
        load_file(folder / "state.safetensors") for folder in sorted((run / "checkpoints").iterdir())
    )
    policy = [name for name in start_weights if name.startswith("policy.trunk.")]
    moved = [name for name in policy if not start_weights[name].equal(end_weights[name])]
    assert len(moved) > 0.9 * len(policy) > 100
    for sample in pq.read_table(run / "samples.parquet").to_pylist():
        assert len(sample["after"].split()) >= 2
