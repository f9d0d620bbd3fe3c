"""The sweep on a Ray cluster of two nodes, of which one is lost in the middle."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.bench import main
from benchmarks.suite.results_folder import read

REPOSITORY = Path(__file__).parents[3]
TINY = (
    "--tasks exact --raters oracle --agents rloo,a2c --seeds 3 --tokens 500 --labels 20 "
    "--test-prompts 4 --test-samples 4"
).split()
BY_CLOCKS = ("seconds", "finished", "peak_rss", "summary")

SWEEP = f"""
import threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from rich.console import Console
from benchmarks.bench import main

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1}})
lost = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
out = Path("OUT")


def lose_a_node():
    while not list(out.glob("runs/[!.]*.parquet")):
        time.sleep(0.1)
    cluster.remove_node(lost, allow_graceful=False)
    print("lost a node", flush=True)


thread = threading.Thread(target=lose_a_node)
thread.start()
code = main([*{TINY!r}, "--engine", "ray", "--address", cluster.address, "--out", str(out)], Console(width=200))
thread.join()
cluster.shutdown()
raise SystemExit(code)
"""


@pytest.mark.slow
def test_a_sweep_ends_though_a_node_is_lost_and_gives_the_rows_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = SWEEP.replace("OUT", str(tmp_path / "ray"))
    # In a process of its own: Ray leaves threads and sockets behind.
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "lost a node" in run.stdout
    assert "2 at a time" in run.stdout
    assert main([*TINY, "--out", str(tmp_path / "local")], Console(file=io.StringIO())) == 0
    there, here = (read(tmp_path / name, "runs").sort_by("cell").to_pylist() for name in ("ray", "local"))
    assert len(there) == 6
    for one, other in zip(there, here, strict=True):
        assert {key: value for key, value in one.items() if not key.startswith(BY_CLOCKS)} == {
            key: value for key, value in other.items() if not key.startswith(BY_CLOCKS)}  # fmt: skip
    curves = [read(tmp_path / name, "curves").drop_columns("seconds").sort_by(
        [("cell", "ascending"), ("iteration", "ascending")]) for name in ("ray", "local")]  # fmt: skip
    assert curves[0] == curves[1]
