"""Contestants run in processes of their own, take turns, and are measured alike."""

import importlib
import io

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from benchmarks.speed import __main__ as command
from benchmarks.speed import flops, plan, race, worker
from benchmarks.speed.ours import tokens_until_end
from benchmarks.speed.plan import CONTESTANTS, Contestant, Race, Shape, Start
from benchmarks.speed.rows import rows_of
from benchmarks.speed.workload import EOS, PAD, Workload

TINY = Shape(layers=1, width=32, vocab=60, prompt=4, response=6, prompts=4, group=2, epochs=2, minibatches=2)
NOT_INSTALLED = Contestant("nobody", "no_such_library:run", "pip install no-such-library")
BROKEN = Contestant("broken", "benchmarks.speed.flops:not_there")


def laps_of(name, shape=TINY, *, judged=False, count=2):
    """The laps of a contestant in this process; the first of those not judged is for warming up."""
    return messages_of(name, shape, judged=judged, count=count)[1:]


def messages_of(name, shape=TINY, *, judged=False, count=2):
    """All that a contestant sends."""
    sent = []
    orders = io.StringIO("go\n" * count)
    with pytest.raises(worker.Finished):
        worker.run(CONTESTANTS[name], shape, torch.get_num_threads(), judged, sent.append, orders)
    assert sent[0]["kind"] == "ready"
    return sent


@pytest.mark.parametrize("name", ["textenv decode", "textenv ppo", "textenv ppo, two networks", "plain loop"])
def test_what_is_executed_is_what_is_needed_and_a_little_more(name):
    """Attention computes what its mask hides, and the plain loop what nobody asks for."""
    ready, lap = messages_of(name, count=1)
    if name == "textenv decode":
        needed = lap["flops"]
    else:
        passes = flops.ppo(TINY, 2 if "two" in name else 1, lap["tokens"])
        needed = passes.rollout + passes.update
    assert needed <= ready["executed"] * lap["tokens"] < (3 if name == "plain loop" else 1.35) * needed


@pytest.mark.parametrize(
    "name", ["textenv ppo", "textenv ppo, two networks", "textenv rloo", "textenv grpo", "plain loop",
             "plain loop, two networks"]
)  # fmt: skip
def test_a_whole_iteration_is_measured(name):
    """8 responses of 6 tokens, 2 epochs of 2 minibatches; the steps are those that torch counted."""
    for lap in laps_of(name):
        assert (lap["kind"], lap["tokens"], lap["steps"]) == ("lap", 48, 4)
        assert 0 < lap["rollout_wall"] < lap["wall"]
        assert 0 < lap["rollout_cpu"] < lap["cpu"]


def test_stable_baselines3_has_as_many_tokens_and_steps():
    pytest.importorskip("stable_baselines3")
    (lap,) = laps_of("sb3 ppo", count=1)
    assert (lap["tokens"], lap["steps"]) == (48, 4)


def test_dpo_learns_from_as_many_responses():
    (lap,) = laps_of("textenv dpo", count=1)
    assert (lap["tokens"], lap["steps"]) == (48, 4)


@pytest.mark.parametrize("name", ["textenv decode", "transformers generate"])
def test_decoding_takes_no_step(name):
    (lap,) = laps_of(name, count=1)
    assert (lap["tokens"], lap["steps"]) == (48, 0)


@pytest.mark.parametrize(("name", "unit"), [("products, rollout", "flops"), ("products, update", "flops"),
                                            ("memory", "bytes")])  # fmt: skip
def test_the_machines_rates_tell_their_work(name, unit, monkeypatch):
    monkeypatch.setattr("benchmarks.speed.rates.FLOPS_AT_ONCE", 1e7)
    monkeypatch.setattr("benchmarks.speed.rates.BYTES_AT_ONCE", 1e7)
    (lap,) = laps_of(name, count=1)
    assert 5e6 < lap[unit] <= 1e7


def test_a_judged_iteration_has_its_share_from_the_first(monkeypatch):
    """One iteration moves a little away from the reference, whose share is 0."""
    monkeypatch.setattr("benchmarks.speed.workload.JUDGED_PROMPTS", 8)
    (lap,) = laps_of("textenv rloo, to the optimum", plan.OPTIMUM, judged=True, count=1)
    assert lap["share"] is not None
    assert 0 != lap["share"] < 0.6


def test_the_synthetic_model_never_ends():
    workload = Workload.of(TINY)
    generator = torch.Generator().manual_seed(0)
    sample = workload.language_model.sample(workload.prompts(200), max_tokens=6, generator=generator)
    assert sample.responses.mask.all()
    assert not ((sample.responses.ids == PAD) | (sample.responses.ids == EOS)).any()


def test_tokens_are_counted_up_to_the_end_of_sequence():
    assert tokens_until_end(torch.tensor([[5, 1, 0, 0], [1, 0, 0, 0], [5, 6, 7, 8], [5, 1, 1, 1]]), 1) == 2 + 1 + 4 + 2


def test_every_contestant_is_there():
    for contestant in CONTESTANTS.values():
        if contestant.function.startswith("benchmarks.speed.stock"):
            pytest.importorskip("stable_baselines3")
        module, _, name = contestant.function.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("quick", [True, False])
def test_every_section_has_races(quick):
    for section in plan.SECTIONS:
        planned = plan.races([section], (1, 2), 3, quick=quick, smollm2=True, bf16=True)
        assert planned
        assert {each.section for each in planned} == {section}
        assert {each.threads for each in planned} == (
            {1, 2} if section in ("decode", "iterations", "concierge") else {1}
        )


@pytest.mark.slow
def test_a_race_in_processes():
    """Two contestants are measured, one has no library and one fails; each says so and the rest go on."""
    starts = [CONTESTANTS["textenv ppo"], NOT_INSTALLED, BROKEN, CONTESTANTS["plain loop"]]
    started = Race("iterations", tuple(Start(each, TINY) for each in starts), threads=1, rounds=2)
    results = [race.Result(start) for start in started.starts]
    turns = []
    race.run(started, results, None, lambda name, number: turns.append((name, number)))
    assert turns[-4:] == [("textenv ppo", 1), ("plain loop", 1), ("textenv ppo", 2), ("plain loop", 2)]
    ours, missing, failed, plain = results
    assert "no_such_library" in missing.missing
    assert "not_there" in failed.failed
    for result in (ours, plain):
        assert result.missing is result.failed is None
        assert [lap["tokens"] for lap in result.laps] == [48, 48]
        assert result.peak_mib > 50
        assert result.versions["torch"]
    assert [(row["contestant"], row["round"]) for row in rows_of(started, results)] == [
        ("textenv ppo", 1), ("textenv ppo", 2), ("plain loop", 1), ("plain loop", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("contestant", "message", "code"),
    [
        (
            NOT_INSTALLED,
            "nobody: not installed (No module named 'no_such_library'); install it with: pip install no",
            0,
        ),
        (BROKEN, "broken: failed: AttributeError: module 'benchmarks.speed.flops' has no attribute 'not_there'", 1),
    ],
)
def test_who_cannot_run_says_why(contestant, message, code, tmp_path, monkeypatch):
    """What is not installed is named with its command and is no failure."""
    only = Race("iterations", (Start(contestant, TINY),), threads=1, rounds=1)
    monkeypatch.setattr(command, "races", lambda *given, **named: [only])
    console = Console(file=io.StringIO(), width=300)
    rows, returned = command.measure(command.SpeedConfig(out=tmp_path), console)
    assert (rows, returned) == ([], code)
    assert console.file.getvalue().startswith(message)


def test_an_interruption_keeps_the_rows(tmp_path, monkeypatch):
    def run(started, results, folder, told):
        lap = {"wall": 1.0, "cpu": 1.0, "rollout_wall": 0.5, "rollout_cpu": 0.5, "tokens": 48, "steps": 4,
               "flops": 0, "bytes": 0, "share": None}  # fmt: skip
        results[0].laps.append(lap)
        raise KeyboardInterrupt

    monkeypatch.setattr(command.running, "run", run)
    assert command.main(["--only", "iterations", "--out", str(tmp_path)]) == 130
    (row,) = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert (row["contestant"], row["tokens"], row["vocab"]) == ("textenv ppo", 48, 1024)
    assert (tmp_path / "summary.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "decoding"], "unknown section 'decoding'. Did you mean 'decode'?"),
        (["--rounds", "0"], "--rounds is 0, expected 1 or more"),
        (["--threads", "0"], "expected numbers from 1 up"),
        (["--trl-ppo", "no-such-folder"], "pip install --no-deps --target no-such-folder trl==1.12.0"),
    ],
)
def test_a_wrong_flag_is_told(flags, message, capsys, tmp_path):
    assert command.main([*flags, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
