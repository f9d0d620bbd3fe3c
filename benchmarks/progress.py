"""What a person sees of a run: bars while it goes, tables when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

TITLES = {
    "reference": "reference answers",
    "compare": "rater compares",
    "self_play": "self-play",
    "demonstrate": "best of reference",
    "reward_model": "reward model learns",
    "reinforce": "agent learns",
    "evaluate": "evaluation",
}
"""What people read of each stage of the loop, in the order in which they run."""
SHOWN = {
    "loss": ("loss", "{:.3f}"),
    "accuracy": ("accuracy", "{:.2f}"),
    "reward_margin": ("margin", "{:+.2f}"),
    "reward": ("reward", "{:+.2f}"),
    "gold": ("gold", "{:.3f}"),
    "kl": ("KL", "{:.2f}"),
}
"""The numbers worth watching, with the name and format in which they are shown."""
SECONDS_BETWEEN_LINES = 5.0
SMOOTHING = 0.8
"""Weight of what was before in a shown number; single iterations jump."""


class Watch:
    """A listener that shows bars on a terminal, and a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.stop = False
        """Set it to have the run stop after the current step."""
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>4.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._numbers: dict[str, float] = {}
        self._began = (0.0, 0)
        self._last_line = 0.0

    def __enter__(self) -> Watch:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stopping(self) -> bool:
        """Whether the run is asked to stop after the current step."""
        return self.stop

    def progress(self, stage: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        """Shows how far a stage is and how it goes."""
        now = time.perf_counter()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(TITLES[stage], total=total, numbers="")
            self._numbers = {}
            self._began = (now, done)
            self._last_line = now
        for name in SHOWN.keys() & numbers.keys():
            before = self._numbers.get(name, numbers[name])
            self._numbers[name] = SMOOTHING * before + (1 - SMOOTHING) * numbers[name]
        shown = [f"{title} {form.format(self._numbers[name])}"
                 for name, (title, form) in SHOWN.items() if name in self._numbers]  # fmt: skip
        start, first = self._began
        if stage == "reinforce" and done > first:
            shown.append(f"{(done - first) / (now - start):,.0f} tokens/s")
        text = "  ".join(shown)
        self._bars.update(self._tasks[stage], completed=min(done, total), total=total, numbers=text)
        if not self._console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f"{TITLES[stage]}: {done:,} of {total:,}  {text}", highlight=False, soft_wrap=True)

    def end(self, stage: str, seconds: float) -> None:
        """Says how long a stage took."""
        if not self._console.is_terminal:
            self._console.print(f"{TITLES[stage]}: done in {seconds:.1f} s", highlight=False)


def result_table(summary: Mapping[str, Any]) -> Table:
    """Before and after, and how much of what could be gained was gained."""
    # An agent that learned from comparisons had no reward: it is judged by the truth alone.
    paid = summary["reward"]
    source = f"comparisons by {summary['rater']}" if paid is None else f"reward {paid}"
    table = Table(title=f"{summary['agent']} on {summary['task']}, {source}, seed {summary['seed']}")
    table.add_column("")
    for name in ("before", "after", "best known"):
        table.add_column(name, justify="right")
    best_of = f"best of {summary['samples_per_prompt']} " if summary["gold_best_of_n"] is not None else ""
    rows = [
        ("gold score (0 to 1)", _number(summary["gold_before"]), _number(summary["gold_after"]),
         best_of + _number(summary["gold_best_of_n"])),
        (f"reward ({paid or 'gold'})", _number(summary["reward_before"]), _number(summary["reward_after"]), ""),
        ("KL to the reference (nats an episode)", _number(0.0), _number(summary["kl"]), ""),
        (f"true objective at β = {summary['evaluation_beta']:g}", _number(summary["objective_reference"]),
         _number(summary["objective"]), _optimum(summary, "")),
        ("share of the optimum, truth", "0", _share(summary, ""), "1"),
    ]  # fmt: skip
    if paid not in (None, "gold"):
        rows.append(("share of the optimum, reward", "0", _share(summary, "reward_"), "1"))
    for row in rows:
        table.add_row(*row)
    if summary["reward_model_accuracy"] is not None:
        table.add_section()
        table.add_row("held-out pairs put in the true order", "", _number(summary["reward_model_accuracy"]), "1")
        table.add_row(
            "held-out labels predicted",
            "",
            _number(summary["reward_model_accuracy_labels"]),
            _number(summary["reward_model_ceiling_labels"]),
        )
    return table


def cost_line(summary: Mapping[str, Any]) -> str:
    """Seconds by stage, tokens, labels and memory."""
    stages = ", ".join(
        f"{title} {summary[f'seconds_{stage}']:.1f}" for stage, title in TITLES.items() if f"seconds_{stage}" in summary
    )
    return (
        f"{summary['seconds']:.0f} seconds ({stages}); {summary['tokens']:,} tokens, {summary['labels']:,} labels, "
        f"{summary['peak_rss_mb']:,.0f} MiB at the peak"
    )


def samples_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Answers before and after, side by side, each with its gold score or else its reward."""
    table = Table(title="The same test prompts before and after", show_lines=True, expand=True)
    for name in ("prompt", "before", "after"):
        table.add_column(name, ratio=1, overflow="fold")
    for row in rows:
        table.add_row(Text(row["prompt"]), _answer(row, "before"), _answer(row, "after"))
    return table


def _answer(row: Mapping[str, Any], when: str) -> Text:
    gold = row[f"gold_{when}"]
    judged = f"gold {gold:.2f}" if gold is not None else f"reward {row[f'reward_{when}']:+.2f}"
    return Text(row[when] or "(nothing)").append(f"\n{judged}", style="dim")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _optimum(summary: Mapping[str, Any], prefix: str) -> str:
    value, error = summary[f"{prefix}objective_optimum"], summary[f"{prefix}optimum_stderr"]
    return _number(value) + (f" ± {error:.3f}" if error else "")


def _share(summary: Mapping[str, Any], prefix: str) -> str:
    share, low, high = (summary[f"{prefix}{name}"] for name in ("share", "share_low", "share_high"))
    if share is None:
        return "–"
    return f"{share:.2f}" if low is None or low == high else f"{share:.2f} [{low:.2f}, {high:.2f}]"
