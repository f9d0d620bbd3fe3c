"""The table of what PPO reaches on each task."""

import json

from benchmarks import task_table
from benchmarks.task_table import TaskTableConfig


def summary(seed: int) -> dict[str, float]:
    """Numbers that differ from run to run."""
    return {
        "gold_before": 0.5,
        "gold_best_of_n": 0.9,
        "gold_after": 0.7 + seed / 10,
        "kl": 3.0 + seed,
        "evaluation_beta": 0.075,
        "objective_optimum": 3.3891,
        "optimum_stderr": 0.00071,
        "share": (0.9, 0.3, 0.8)[seed],
    }


def test_runs_that_are_there_are_read_and_not_made_again(tmp_path):
    for seed in range(3):
        folder = tmp_path / f"concierge-seed{seed}"
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(summary(seed)))
    before = sorted(tmp_path.rglob("*"))
    rows = task_table.rows(TaskTableConfig(tasks=("concierge",), out=tmp_path))
    assert rows == [
        ["`concierge`", "0.50", "0.90", "0.80", "4.0", "0.075", "3.389 ± 0.0007", "0.90, 0.30, 0.80", "0.80"]
    ]
    assert sorted(tmp_path.rglob("*")) == before
    assert task_table.markdown(rows).splitlines()[2] == (
        "| `concierge` | 0.50 | 0.90 | 0.80 | 4.0 | 0.075 | 3.389 ± 0.0007 | 0.90, 0.30, 0.80 | 0.80 |"
    )


def test_an_unknown_task_is_one_message(tmp_path, capsys):
    assert task_table.main(["--tasks", "concierg", "--out", str(tmp_path)]) == 2
    assert "unknown task 'concierg'. Did you mean 'concierge'" in capsys.readouterr().err
