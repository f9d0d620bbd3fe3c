"""What is told of a measurement is what its rows say."""

import json

import pytest

from benchmarks.speed import flops
from benchmarks.speed.pictures import draw
from benchmarks.speed.plan import CONCIERGE, ONLINE, SIZES, SMOLLM2_PPO, Shape, scaled
from benchmarks.speed.rows import SCHEMA
from benchmarks.speed.summary import SHAPE, curves, slope, summarise


def row(contestant, number, cpu, *, section="iterations", shape=ONLINE, **more):
    """A row with a round's numbers; 1000 tokens unless told otherwise."""
    values = {
        "section": section,
        "contestant": contestant,
        "threads": 1,
        "round": number,
        **{name: getattr(shape, name) for name in SHAPE},
        "wall": 2 * cpu,
        "cpu": cpu,
        "rollout_wall": 0.0,
        "rollout_cpu": 0.0,
        "tokens": 1000,
        "steps": 16,
        "flops": 0,
        "bytes": 0,
        "share": None,
        "executed": 4e6,
        "peak_mib": 500.0,
        "versions": "{}",
        "processor": "a processor",
        "cores": 2,
    } | more
    assert values.keys() == set(SCHEMA.names)
    return values


def entry(summary, name):
    return next(each for each in summary["races"] if each["contestant"] == name)


def test_medians_quartiles_and_ratios_round_by_round():
    """In the second round the whole machine was ten times as slow, which no ratio feels."""
    rows = [row("textenv ppo", number, cpu) for number, cpu in enumerate((1.0, 10.0, 1.25), 1)]
    rows += [row("trl ppo", number, cpu, executed=7e6) for number, cpu in enumerate((2.0, 20.0, 2.0), 1)]
    rows += [row("trl ppo, bf16", 1, 9.0), row("plain loop", 1, 4.0), row("trl rloo", 1, 7.0)]
    summary = summarise(rows)
    ours = entry(summary, "textenv ppo")
    assert ours["tokens_per_cpu_second"] == {"median": 800.0, "low": 450.0, "high": 900.0}
    assert ours["tokens_per_second"]["median"] == 400.0
    assert ours["steps"] == [16]
    assert ours["times"] == {"than": "trl ppo", "median": 2.0, "low": 1.8, "high": 2.0, "by_operations": 1.75}
    assert entry(summary, "trl ppo")["times"] is None
    assert entry(summary, "plain loop")["times"] is None
    json.dumps(summary, allow_nan=False)


def test_a_ratio_is_of_the_same_shape_and_threads():
    rows = [row("textenv ppo", 1, 1.0), row("trl ppo", 1, 2.0, shape=CONCIERGE), row("trl ppo", 1, 2.0, threads=2)]
    assert entry(summarise(rows), "textenv ppo")["times"] is None


def test_nothing_measured_is_no_error(tmp_path):
    summary = summarise([])
    assert summary["races"] == []
    assert not draw(tmp_path / "speed.png", summary, curves([]))


def test_the_slope_is_the_power():
    assert slope([(x, 7 * x**1.5) for x in (1, 10, 50, 300)]) == pytest.approx(1.5)


def test_cost_is_fitted_along_one_axis_at_a_time(tmp_path):
    """Seconds that grow with length·episodes^0.5·layers: the sizes that stay fixed change no slope."""
    rows = [
        row("textenv ppo", 1, shape.response * shape.episodes**0.5 * shape.layers, section="scaling", shape=shape)
        for shape in scaled(quick=False)
    ]
    found = summarise(rows)["slopes"]
    assert found["response length"] == pytest.approx(1)
    assert found["response length from 32 to 256"] == pytest.approx(1)
    assert found["episodes"] == pytest.approx(0.5)
    points = curves(rows)
    assert [x for x, _ in points["episodes"]] == [16, 32, 64, 128, 256, 512, 1024]
    assert len(points["parameters"]) == 5
    assert draw(tmp_path / "speed.png", summarise(rows), points)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_the_sizes_of_models_are_what_they_are_called():
    for millions, (layers, width) in SIZES.items():
        assert flops.parameters(Shape(layers=layers, width=width)) / 1e6 == pytest.approx(millions, rel=0.1)


def test_shares_of_the_machines_rate():
    """The update has what is left of the iteration after the rollout; each model is held to its own rates."""
    needed = flops.ppo(ONLINE, networks=1, generated=4096)
    rows = [
        row("products, rollout", 1, 1.0, section="roofline", flops=10**10),
        row("products, update", 1, 1.0, section="roofline", flops=2 * 10**10),
        row("textenv ppo", 1, 5.0, section="roofline", rollout_cpu=1.0, tokens=4096),
        row("products, rollout", 1, 1.0, section="roofline", shape=SMOLLM2_PPO, flops=4 * 10**10),
        row("products, update", 1, 1.0, section="roofline", shape=SMOLLM2_PPO, flops=4 * 10**10),
        row("textenv ppo", 1, 5.0, section="roofline", shape=SMOLLM2_PPO, rollout_cpu=1.0, tokens=700),
    ]
    real, _, rollout, update = summarise(rows)["shares"]
    assert (real["model"], real["machine_gflops"]) == ("smollm2", 40)
    assert (rollout["model"], rollout["part"], update["part"]) == ("synthetic", "rollout", "update")
    assert rollout["share"] == pytest.approx(needed.rollout / 10**10)
    assert update["share"] == pytest.approx(needed.update / 4 / (2 * 10**10))


@pytest.mark.parametrize(
    ("bandwidth", "seconds", "bound"),
    [
        (10**11, 1.0, "arithmetic"),  # 100 GB/s at 1 operation a byte would allow 100; arithmetic 10, 8 are reached.
        (9 * 10**9, 1.0, "memory"),
        (10**11, 4.0, "calls of small operations"),  # 2 of 10.
    ],
)
def test_what_bounds_decoding(bandwidth, seconds, bound):
    rows = [
        row("products, rollout", 1, 1.0, section="roofline", shape=CONCIERGE, flops=10**10),
        row("memory", 1, 1.0, section="roofline", shape=CONCIERGE, bytes=bandwidth),
        row("textenv decode", 1, seconds, section="roofline", shape=CONCIERGE, flops=8 * 10**9, bytes=8 * 10**9),
    ]
    (found,) = summarise(rows)["roofline"]
    assert found["bound_by"] == bound
    assert found["responses"] == 128
    assert found["flops_per_byte"] == 1


def test_time_to_the_optimum_is_that_of_the_first_iteration_there():
    rows = [row("textenv rloo", number, 1.5, section="optimum", share=share)
            for number, share in enumerate((0.2, 0.85, 0.7), 1)]  # fmt: skip
    rows += [row("trl rloo", 1, 1.5, section="optimum", share=0.3)]
    ours, theirs = summarise(rows)["optimum"]
    assert (ours["seconds"], ours["cpu_seconds"], ours["iterations"], ours["best_share"]) == (6.0, 3.0, 2, 0.85)
    assert (theirs["seconds"], theirs["iterations"], theirs["cpu_seconds_run"]) == (None, None, 1.5)
