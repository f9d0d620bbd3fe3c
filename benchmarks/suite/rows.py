"""The columns of the benchmark's tables: what each holds, in which unit, and how files are checked for them.

Every table is Parquet that pandas, polars or DuckDB read as they are. The meaning of a column is written
into the file too: `pyarrow.parquet.read_schema(file).field("kl").metadata[b"meaning"]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from textenv.errors import UsageError, first_line

SCHEMA = 1
"""Counts up when a column changes its meaning or is taken away; one that is `added` leaves it as it is."""

_SCHEMA_KEY = b"textenv.results"

Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""What a cell leaves, by table."""


class Column(NamedTuple):
    """One column."""

    type: pa.DataType
    meaning: str
    added: bool = False
    """Whether it came after the first files; those that lack it are read with null in it."""


TEXT, NUMBER, COUNT, YES_NO = pa.string(), pa.float64(), pa.int64(), pa.bool_()

IDENTITY: dict[str, Column] = {
    "cell": Column(TEXT, "hash of all that the run's result depends on: its config, its code and the version"),
    "experiment": Column(TEXT, "folder under benchmarks/experiments"),
    "agent": Column(TEXT, "name, or module:Class"),
    "task": Column(TEXT, "name, or module:Class"),
    "rater": Column(TEXT, "who judged; `gold` is the truth: as reward, or as judge of comparisons or demonstrations"),
    "variant": Column(TEXT, "level of what the experiment varies; empty where that is agents or raters"),
    "settings": Column(TEXT, "of the agent, where a sweep tries several: field=value, parted by commas; else empty"),
    "seed": Column(COUNT, "fixes prompts, raters, learning and evaluation noise"),
}
"""The columns that every table begins with."""

RUNS: dict[str, Column] = IDENTITY | {
    "status": Column(TEXT, "done or failed"),
    "error": Column(TEXT, "what went wrong, of a failed run"),
    "own_agent": Column(YES_NO, "whether the agent is none of ours"),
    "learns_from": Column(TEXT, "rewards, preferences or demonstrations"),
    "finished": Column(TEXT, "when, ISO 8601, UTC"),
    "gold_before": Column(NUMBER, "gold score of the reference on the test prompts, 0 to 1"),
    "gold_after": Column(NUMBER, "gold score of the policy, 0 to 1"),
    "gold_best_of_n": Column(NUMBER, "gold score of the best of the reference's samples, 0 to 1"),
    "utility_before": Column(NUMBER, "true utility of the reference, in utility units"),
    "utility_after": Column(NUMBER, "true utility of the policy, in utility units"),
    "reward_before": Column(NUMBER, "reward of the reference, mean an episode"),
    "reward_after": Column(NUMBER, "reward of the policy, mean an episode"),
    "kl": Column(NUMBER, "KL of the policy to the reference, nats an episode"),
    "total_variation": Column(
        NUMBER,
        "distance of the policy from the best one, 0 to 1, mean over prompts; null where neither is enumerated",
        added=True,
    ),
    "objective": Column(NUMBER, "J = true utility - beta * KL at the task's evaluation beta"),
    "objective_reference": Column(NUMBER, "J of the reference"),
    "objective_optimum": Column(NUMBER, "J*, the best reachable"),
    "optimum_stderr": Column(NUMBER, "standard error of J*"),
    "share": Column(NUMBER, "(J - J_ref) / (J* - J_ref): 0 is the reference, 1 the optimum"),
    "share_low": Column(NUMBER, "lower end of its 95% interval over test prompts"),
    "share_high": Column(NUMBER, "upper end"),
    "effective_sample_size": Column(NUMBER, "behind J*, a prompt"),
    "reward_share": Column(NUMBER, "the share, with the learned reward in the place of the truth"),
    "evaluation_beta": Column(NUMBER, "weight of the KL in J"),
    "response_length_before": Column(NUMBER, "tokens of the reference's responses"),
    "response_length_after": Column(NUMBER, "tokens of the policy's responses"),
    "reward_model_accuracy": Column(NUMBER, "fraction of held-out pairs put in the true order"),
    "reward_model_accuracy_labels": Column(NUMBER, "fraction of held-out labels predicted"),
    "reward_model_ceiling_labels": Column(NUMBER, "fraction that the truth itself would predict"),
    "tokens": Column(COUNT, "response tokens learned from"),
    "labels": Column(COUNT, "comparisons that the rater gave"),
    "seconds": Column(NUMBER, "wall-clock seconds of all stages, each counted in full where runs shared it"),
    "seconds_reference": Column(NUMBER, "of sampling the reference for the rater"),
    "seconds_compare": Column(NUMBER, "of the rater's comparisons"),
    "seconds_reward_model": Column(NUMBER, "of learning the reward"),
    "seconds_reinforce": Column(NUMBER, "of the agent's learning"),
    "seconds_evaluate": Column(NUMBER, "of judging the policy"),
    "tokens_to_50": Column(
        NUMBER, "tokens learned from when half of the optimum was reached, see `reached`; else null"
    ),
    "tokens_to_80": Column(NUMBER, "when 0.8 of it was"),
    "seconds_to_50": Column(NUMBER, "wall-clock seconds until half of the optimum was reached, all stages among them"),
    "seconds_to_80": Column(NUMBER, "until 0.8 of it was"),
    "seconds_cell": Column(NUMBER, "from the cell's start to its end, without what it took over from another one"),
    "peak_rss_mb": Column(NUMBER, "peak memory of the process, MiB"),
    "config": Column(TEXT, "all that was asked, as JSON"),
    "code": Column(TEXT, "SHA-256 of the files of one's own agents, tasks and raters, as JSON"),
    "summary": Column(TEXT, "the run's summary.json whole"),
    "machine": Column(TEXT, "name of the machine"),
    "processor": Column(TEXT, "its processor"),
    "capability": Column(TEXT, "the instructions that torch uses of it"),
    "threads": Column(COUNT, "torch threads"),
    "python": Column(TEXT, "version"),
    "torch": Column(TEXT, "version"),
    "transformers": Column(TEXT, "version"),
    "version": Column(TEXT, "of textenv"),
}

CURVES: dict[str, Column] = IDENTITY | {
    "iteration": Column(COUNT, "from 0"),
    "tokens": Column(COUNT, "response tokens learned from when this iteration's policy answered"),
    "labels": Column(COUNT, "comparisons bought by then"),
    "seconds": Column(NUMBER, "since the run began, the stages before learning among them"),
    "gold": Column(NUMBER, "gold score on the iteration's training prompts, 0 to 1"),
    "reward": Column(NUMBER, "reward there, mean an episode"),
    "kl": Column(NUMBER, "KL to the reference there, nats an episode, estimated by k1"),
    "objective": Column(NUMBER, "true J there"),
    "share": Column(NUMBER, "share of the optimum there, by the J_ref and J* of the test prompts: noisy, so smooth it"),
    "response_length": Column(NUMBER, "tokens"),
    "accuracy": Column(NUMBER, "comparisons put in the labels' order, for agents that learn from comparisons"),
}

SAMPLES: dict[str, Column] = IDENTITY | {
    "number": Column(COUNT, "of the test prompt, from 0"),
    "prompt": Column(TEXT, "as people read it"),
    "before": Column(TEXT, "answer of the reference"),
    "after": Column(TEXT, "answer of the policy"),
    "gold_before": Column(NUMBER, "gold score of the reference's answer"),
    "gold_after": Column(NUMBER, "gold score of the policy's answer"),
    "reward_after": Column(NUMBER, "reward of the policy's answer"),
}

TRANSFER: dict[str, Column] = IDENTITY | {
    "on_task": Column(TEXT, "task that the policy was tried on; `task` is the one it has learned"),
    "split": Column(TEXT, "prompts: test, or heldout, whose words never occur together in training"),
    "gold_before": Column(NUMBER, "gold score of the reference, 0 to 1"),
    "gold_after": Column(NUMBER, "gold score of the policy, 0 to 1"),
    "gain": Column(NUMBER, "gold_after - gold_before"),
    "kl": Column(NUMBER, "KL to the reference there, nats an episode"),
    "objective_gain": Column(NUMBER, "J - J_ref there, at that task's evaluation beta"),
    "prompts": Column(COUNT, "how many"),
}

TABLES: dict[str, dict[str, Column]] = {"runs": RUNS, "curves": CURVES, "samples": SAMPLES, "transfer": TRANSFER}
"""The columns of each table."""


def contestant(agent: str, settings: str) -> str:
    """What is compared where agents are: an agent, with its settings where a sweep tries several."""
    return f"{agent} {settings}".strip()


def schema(table: str) -> pa.Schema:
    """The schema of a table's files, with the columns' meanings."""
    fields = [
        pa.field(name, column.type, metadata={"meaning": column.meaning}) for name, column in TABLES[table].items()
    ]
    return pa.schema(fields, metadata={_SCHEMA_KEY: str(SCHEMA).encode()})


def table_of(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table; what a row lacks is null, and what is no column is left out."""
    return pa.table(
        {column: pa.array([row.get(column) for row in rows], kind.type) for column, kind in TABLES[name].items()},
        schema=schema(name),
    )


def read_tables(name: str, files: Iterable[Path]) -> pa.Table:
    """All rows of several files of one table.

    Raises:
        UsageError: a file is damaged, of another version, or lacks columns.
    """
    wanted = schema(name)
    return pa.concat_tables([wanted.empty_table(), *(_read(name, file, wanted) for file in files)])


def _read(name: str, file: Path, wanted: pa.Schema) -> pa.Table:
    mend = "Take it out of the folder, or put back a copy of it."
    try:
        found = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{file} cannot be read ({first_line(error)}). {mend}") from None
    stated = (found.schema.metadata or {}).get(_SCHEMA_KEY, b"none").decode()
    if stated != str(SCHEMA):
        raise UsageError(
            f"{file} was written with version {stated} of the columns, and this is version {SCHEMA}. Read it with the "
            f"textenv that wrote it, or choose another folder. {mend}"
        )
    lacking = [column for column in wanted.names if column not in found.column_names]
    missing = [column for column in lacking if not TABLES[name][column].added]
    if missing:
        raise UsageError(f"{file} lacks the column {', '.join(missing)} of the table {name}. {mend}")
    for column in lacking:
        found = found.append_column(column, pa.nulls(len(found), wanted.field(column).type))
    try:
        return found.select(wanted.names).cast(wanted)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{file} has a column of another kind ({first_line(error)}). {mend}") from None
