"""The report of a run: one HTML file that needs no network and no script.

Whatever the run folder lacks (no truth, no reward model, not finished yet) is left out with a
sentence that says why. All texts come from models and users, so the templates escape everything.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from agents.run_folder import read_description
from benchmarks import plots
from benchmarks.command_line import command, flat
from benchmarks.progress import TITLES
from benchmarks.smoothing import smoothing_window
from textenv.errors import TextenvError
from textenv.files import write_atomically

SAMPLES_SHOWN = 16
HEALTH = {
    "kl": "KL (nats an episode)",
    "beta": "β (reward units a nat)",
    "entropy": "entropy (nats a token)",
    "response_length": "response length (tokens)",
    "clip_fraction": "clipped ratios (fraction)",
    "explained_variance": "explained variance of the value",
    "loss": "loss (nats a comparison)",
    "accuracy": "comparisons put in the labels' order (fraction)",
    "reward_margin": "margin of the implicit reward (reward units)",
    "reward_chosen": "implicit reward of what was preferred (reward units)",
    "reward_rejected": "implicit reward of what was not (reward units)",
    "logprob_chosen": "log-probability of what was preferred (nats)",
}
"""Metrics that tell whether training went well, with their axis labels."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds; parts that it lacks are None or empty."""

    path: Path
    description: dict[str, Any]
    summary: dict[str, Any] | None
    metrics: dict[str, plots.Values]
    """One value an iteration for each metric, NaN where an iteration has none."""
    calibration: dict[str, Any] | None
    samples: list[dict[str, Any]]
    seconds: dict[str, float]
    """Wall-clock seconds of each finished stage."""

    @property
    def tokens_before(self) -> plots.Values | None:
        """How many tokens each iteration's policy had learned from when it answered."""
        timesteps = self.metrics.get("timesteps")
        return None if timesteps is None else np.concatenate([[0.0], timesteps[:-1]])

    @property
    def from_comparisons(self) -> bool:
        """Whether the agent learns from the raters' comparisons themselves: it goes on without a reward model."""
        return bool(self.metrics) and self.calibration is None and self.config.get("reward") == "learned"

    @property
    def config(self) -> dict[str, Any]:
        """What was asked."""
        return dict(self.description["config"])

    def number(self, key: str) -> float | None:
        """A finite number of the summary, or None."""
        value = (self.summary or {}).get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class Picture(NamedTuple):
    """An inline SVG with its title."""

    title: str
    svg: Markup


class Token(NamedTuple):
    """A response token with its reward and how strongly that colours it."""

    text: str
    reward: float | None
    strength: float
    """In [-1, 1]: the sign picks the colour, the size its opacity."""


def write_report(run: Path) -> Path:
    """Writes RUN/report.html from what the run folder holds and returns its path.

    Raises:
        UsageError: `run` is not a run folder.
        TextenvError: one of its files is damaged, or the disk is full.
    """
    page = render(read_run(run))
    target = run / "report.html"
    write_atomically(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return target


def read_run(path: Path) -> Run:
    """Reads a run folder, finished or not.

    Raises:
        UsageError: `path` is not a run folder.
        TextenvError: one of its files cannot be read.
    """
    description = read_description(path)
    summary = _read_json(path / "summary.json")
    stages = {file.stem: _read_json(file) or {} for file in (path / "stages").glob("*.json")}
    seconds = {name: float(stage["seconds"]) for name, stage in stages.items() if "seconds" in stage}
    order = {name: place for place, name in enumerate(TITLES)}
    return Run(
        path=path,
        description=description,
        summary=summary,
        metrics=_columns(sorted((path / "metrics").glob("part-*.parquet"))),
        calibration=_read_json(path / "reward_model_calibration.json"),
        samples=_read_table(path / "samples.parquet").slice(0, SAMPLES_SHOWN).to_pylist()
        if (path / "samples.parquet").exists()
        else [],
        seconds=dict(sorted(seconds.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))),
    )


def render(run: Run) -> str:
    """The page of a run."""
    environment = Environment(
        loader=PackageLoader("benchmarks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = number
    scale = colour_scale([reward for sample in run.samples for reward in sample.get("token_rewards_after") or []])
    samples = [dict(sample) | {"tokens": coloured_tokens(sample, scale)} for sample in run.samples]
    return environment.get_template("report.html").render(
        run=run,
        summary=run.summary or {},
        curves=_curves(run),
        window=smoothing_window(len(run.metrics.get("timesteps", ()))),
        health=_health(run),
        calibration=_calibration(run),
        samples=samples,
        legend=_legend(scale),
        config=flat(run.config),
        command=command(run.config, run.description["threads"]),
        resume=shlex.join(["textenv", "train", "--resume", str(run.path)]),
    )


def number(value: object, digits: int = 2, *, sign: bool = False) -> str:
    """A number for people: a true minus, thin spaces between thousands, a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace(",", "\u2009").replace("-", "\u2212")


def colour_scale(rewards: Sequence[float]) -> tuple[float, float]:
    """The largest and the typical (median) size of the token rewards, both above 0.

    The score at the last token is often a hundred times the KL terms before it; a scale that is
    linear up to the typical size and logarithmic from there (asinh) shows both. The typical size is
    taken for a thousandth of the largest at least, or a policy that has hardly left the reference
    would be coloured by rounding.
    """
    sizes = np.abs(np.array(rewards, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return 1.0, 1.0
    largest = float(sizes.max())
    return largest, max(float(np.median(sizes)), largest / 1000)


def strength(reward: float | None, scale: tuple[float, float]) -> float:
    """Where a reward lies on the colour scale, in [-1, 1]; 0 for a reward that is missing."""
    if reward is None or not math.isfinite(reward):
        return 0.0
    largest, typical = scale
    return max(-1.0, min(1.0, math.asinh(reward / typical) / math.asinh(largest / typical)))


def coloured_tokens(sample: Mapping[str, Any], scale: tuple[float, float]) -> list[Token]:
    """The tokens of a sample's answer after training; empty where the run has no token rewards."""
    texts, rewards = sample.get("tokens_after") or [], sample.get("token_rewards_after") or []
    return [Token(text, reward, strength(reward, scale)) for text, reward in zip(texts, rewards, strict=False)]


def _legend(scale: tuple[float, float]) -> list[Token]:
    largest, typical = scale
    places = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
    rewards = [typical * math.sinh(place * math.asinh(largest / typical)) for place in places]
    return [
        Token(number(reward, 3 if abs(reward) < 0.1 else 2, sign=True), reward, place)
        for reward, place in zip(rewards, places, strict=True)
    ]


def _curves(run: Run) -> list[Picture]:
    """Gold and reward against KL and against tokens, as far as the run measured them."""
    reward = "learned reward" if run.calibration else "reward"
    subjects = (
        ("gold", "gold score (0 to 1)", plots.TRUTH),
        ("reward", f"{reward} (mean an episode)", plots.LEARNED),
    )
    grounds = (("kl", "KL from the reference (nats an episode)"), ("tokens", plots.TOKENS))
    pictures = []
    for key, ylabel, colour in subjects:
        for ground, xlabel in grounds:
            x, y = run.metrics.get("kl") if ground == "kl" else run.tokens_before, run.metrics.get(key)
            if x is None or y is None or not np.isfinite(x * y).any():
                continue
            before, after = run.number(f"{key}_before"), run.number(f"{key}_after")
            end = run.number("kl") if ground == "kl" else float(run.metrics["timesteps"][-1])
            marks = []
            if before is not None and after is not None and end is not None:
                marks = [plots.Mark(0.0, before, False), plots.Mark(end, after, True)]
            figure = plots.curve(x, y, xlabel=xlabel, ylabel=ylabel, colour=colour, marks=marks)
            title = f"{ylabel.split(' (')[0].capitalize()} against {'KL' if ground == 'kl' else ground}"
            pictures.append(_picture(figure, title, f"{key}-{ground}"))
    return pictures


def _health(run: Run) -> list[Picture]:
    x = run.tokens_before
    return [
        _picture(
            plots.curve(x, run.metrics[key], xlabel=plots.TOKENS, ylabel=label, colour=plots.MUTED, size=(3.2, 2.2)),
            label[0].upper() + label[1:],
            f"health-{key.replace('_', '-')}",
        )
        for key, label in HEALTH.items()
        if x is not None and key in run.metrics and np.isfinite(x * run.metrics[key]).any()
    ]


def _calibration(run: Run) -> Picture | None:
    bins = [plots.Bin(**each) for each in (run.calibration or {}).get("bins", []) if each["count"] > 0]
    if not bins:
        return None
    return _picture(plots.calibration(bins), "Predicted and observed preferences", "calibration")


def _picture(figure: Figure, title: str, name: str) -> Picture:
    # Markup is not escaped again; matplotlib has escaped the texts in it.
    return Picture(title, Markup(plots.svg(figure, name, title)))


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(file, error) from None
    if not isinstance(value, dict):
        raise _damaged(file, TypeError("it holds no JSON object"))
    return value


def _read_table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _columns(parts: Sequence[Path]) -> dict[str, plots.Values]:
    if not parts:
        return {}
    table = pa.concat_tables([_read_table(part) for part in parts], promote_options="permissive")
    numeric = [name for name in table.column_names if pa.types.is_primitive(table.schema.field(name).type)]
    return {
        name: np.array([math.nan if value is None else value for value in table[name].to_pylist()], dtype=float)
        for name in numeric
    }


def _damaged(file: Path, error: Exception) -> TextenvError:
    return TextenvError(f"{file} cannot be read ({error}). Take it out of the folder, and the report leaves it out.")
