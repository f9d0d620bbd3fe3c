"""The command `textenv bench`, from the first cell to the report, and on after it was stopped."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.bench import main, parse
from benchmarks.suite import sweep
from benchmarks.suite.results_folder import read
from textenv.errors import UsageError

REPOSITORY = Path(__file__).parents[3]
TINY = "--tasks exact --raters gold --tokens 500 --test-prompts 4 --test-samples 4 --workers 1".split()


def bench(*words: str, out: Path) -> tuple[int, str]:
    text = io.StringIO()
    code = main([*TINY, "--out", str(out), *words], Console(file=text, width=200))
    return code, text.getvalue()


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_failure_and_runs_only_what_is_missing(out: Path, wrong_agents: str) -> None:
    mine = f"{wrong_agents}:Fails"
    code, said = bench("--agents", f"rloo,{mine}", "--seeds", "1", "--no-check", out=out)
    assert code == 1
    assert "2 runs, 0 of them there already" in said
    assert f"failed: leaderboard · {mine} · exact · gold · seed 0: RuntimeError: the agent is at a loss\n" in said
    assert "Traceback" not in said
    runs = read(out, "runs")
    assert dict(zip(runs["agent"].to_pylist(), runs["status"].to_pylist(), strict=True)) == {
        "rloo": "done", mine: "failed"}  # fmt: skip
    page = (out / "report.html").read_text()
    assert f"{mine} (own)" in page
    assert "the agent is at a loss" in page
    assert not (out / "work").exists()
    # One seed more runs just that; what has failed is not run again.
    code, said = bench("--agents", f"rloo,{mine}", "--seeds", "1", out=out)
    assert (code, "2 runs, 2 of them there already (1 failed; --retry runs it again)" in said) == (0, True)
    code, said = bench("--agents", "rloo", "--seeds", "2", out=out)
    assert (code, "2 runs, 1 of them there already" in said) == (0, True)
    assert sorted(zip(read(out, "runs")["agent"].to_pylist(), read(out, "runs")["seed"].to_pylist(), strict=True)) == [
        ("rloo", 0), ("rloo", 1), (mine, 0)]  # fmt: skip


def test_an_agent_that_breaks_its_contract_is_refused_before_anything_is_run(out: Path, wrong_agents: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)breaks the contract.*the agent is at a loss.*--no-check"):
        bench("--agents", f"rloo,{wrong_agents}:Fails", out=out)
    assert not (out / "bench.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--agents pppo", "Did you mean 'ppo'"),
        ("--experiments leaderbord", "Did you mean 'leaderboard'"),
        ("--seeds 0", "--seeds is 0"),
        ("--tokens 0", "--tokens is 0"),
        ("--workers 999", "--workers is 999, expected 1 to"),
        ("--time-limit 0", "--time-limit is 0"),
        ("--address auto", "add --engine ray"),
        ("--engine ray --workers 1", "--workers is for this machine"),
        ("--agents sft --raters oracle", "nothing to run: sft is not run with raters: it learns from demonstrations"),
        ("--agents ppo --set ppo.learning_rat=1", "Did you mean 'learning_rate'"),
    ],
)
def test_bad_requests_are_named(words: str, message: str, out: Path) -> None:
    with pytest.raises(UsageError, match=message):
        bench(*words.split(), out=out)
    assert not (out / "bench.json").exists()


def test_lists_are_parted_by_commas_or_spaces() -> None:
    config = parse(["--agents", "ppo,a2c", "rloo", "--tasks", "exact"])
    assert (config.agents, config.tasks, config.raters) == (("ppo", "a2c", "rloo"), ("exact",), None)


@pytest.mark.parametrize("preset", sweep.PRESETS)
def test_presets_are_of_names_that_are_there(preset: str) -> None:
    plan = sweep.plan(["leaderboard"], preset, {})
    values = sweep.PRESETS[preset]
    product = len(values["agents"]) * len(values["tasks"]) * len(values["raters"]) * values["seeds"]
    assert len({cell.id for cell in plan.cells}) == len(plan.cells) == product


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_polite_kill_keep_what_is_done_and_the_same_command_goes_on(
    number: signal.Signals, out: Path, wrong_agents: str
) -> None:
    module = Path(sys.modules[wrong_agents].__file__ or "") if wrong_agents in sys.modules else None
    folder = module.parent if module else next(Path(p) for p in sys.path if (Path(p) / f"{wrong_agents}.py").exists())
    words = [*TINY, "--agents", f"rloo,{wrong_agents}:Waits", "--seeds", "1", "--no-check", "--out", str(out)]
    command = [sys.executable, "-m", "benchmarks.cli", "bench", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(folder)])}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    process = start()
    while process.poll() is None and not list(out.glob("runs/[!.]*.parquet")):
        time.sleep(0.1)
    process.send_signal(number)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "Stopped; 1 of 2 runs are kept. Go on with:" in said
    assert "Traceback" not in said
    assert read(out, "runs")["agent"].to_pylist() == ["rloo"]
    (folder / "go").touch()
    process = start()
    said, _ = process.communicate(timeout=300)
    (folder / "go").unlink()
    assert process.returncode == 0, said
    assert "2 runs, 1 of them there already" in said
    assert read(out, "runs")["status"].to_pylist() == ["done", "done"]
