"""A sweep: which cells are asked for, which of them are missing, and running those."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import agents
from agents.rlhf import RLHFConfig, prepare
from benchmarks import experiments
from benchmarks.suite import agent_settings
from benchmarks.suite.agent_settings import config_of
from benchmarks.suite.board import Board
from benchmarks.suite.cells import Axes, Cell, cells_of, check_names
from benchmarks.suite.engines import Engine
from benchmarks.suite.results_folder import ResultsFolder
from textenv.errors import UsageError

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "agents": ("ppo", "a2c", "rloo", "grpo"),
        "tasks": ("concierge", "exact"),
        "raters": ("gold", "bradley-terry"),
        "seeds": 5,
        "tokens": 10_000,
        "labels": 1024,
        "test_prompts": 32,
        "test_samples": 16,
    },
    "full": {
        "agents": ("ppo", "a2c", "rloo", "grpo", "dpo"),
        "tasks": ("concierge", "reviews", "summary", "translate", "classify", "exact"),
        "raters": ("gold", "oracle", "bradley-terry", "mistaken"),
        "seeds": 10,
        "tokens": RLHFConfig.tokens,
        "labels": RLHFConfig.labels,
        "test_prompts": RLHFConfig.test_prompts,
        "test_samples": RLHFConfig.test_samples,
    },
}
"""What is run where nothing else is asked for; `quick` is for a first look, not for conclusions."""

SETTINGS = ("tokens", "labels", "test_prompts", "test_samples")
"""The fields of a run's config that a preset sets."""


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep."""

    cells: Sequence[Cell]
    left_out: Sequence[str]
    """A line for each combination that makes no sense."""
    axes: Mapping[str, Axes]
    """What each experiment multiplies."""


def plan(names: Sequence[str], preset: str, asked: Mapping[str, Any], words: Sequence[str] = ()) -> Plan:
    """The cells of some experiments.

    Args:
        names: of the experiments.
        preset: what is taken where neither was it asked nor has the experiment a preference.
        asked: as a preset has it; None is nothing asked.
        words: agents' settings that are tried, as `agent_settings.parse` takes them.

    Raises:
        UsageError: a name is not known, or a number is out of its range.
    """
    cells: list[Cell] = []
    left_out: list[str] = []
    axes: dict[str, Axes] = {}
    for name in names:
        experiment = experiments.load(name)
        axes[name] = _axes(experiment, {**PRESETS[preset], **experiment.preset}, asked, words)
        found, without = cells_of(
            name, axes[name], experiment.variants, transfer=experiment.transfer, labels_needed=experiment.labels_needed
        )
        cells += found
        left_out += without
    if not cells:
        raise UsageError(f"there is nothing to run: {'; '.join(left_out)}")
    return Plan(cells, list(dict.fromkeys(left_out)), axes)


def _axes(
    experiment: experiments.Experiment, otherwise: Mapping[str, Any], asked: Mapping[str, Any], words: Sequence[str]
) -> Axes:
    values = {name: value if asked.get(name) is None else asked[name] for name, value in otherwise.items()}
    if values["seeds"] < 1:
        raise UsageError(f"--seeds is {values['seeds']}, expected 1 or more")
    settings = {name: values[name] for name in SETTINGS}
    axes = Axes(values["agents"], values["tasks"], values["raters"], values["seeds"], settings)
    check_names(axes)
    tried = {
        agent: [settings for settings in several if not settings or config_of(agent, settings) != config_of(agent, {})]
        for agent, several in experiment.agent_settings.items()
        if agent in axes.agents
    }
    return dataclasses.replace(axes, agent_settings=tried | agent_settings.parse(words, axes.agents))


def try_out(cells: Iterable[Cell]) -> None:
    """Loads everything that the cells name once, so that what is wrong with it shows before hours are spent.

    Raises:
        UsageError: names what cannot be used and why.
    """
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        config = cell.config
        named = {("agent", config["agent"]), ("task", config["task"]), ("rater", cell.rater), ("variant", cell.variant)}
        if not named <= seen:
            prepare(RLHFConfig.from_json(config))
            seen |= named


def check_own_agents(cells: Iterable[Cell], say: Callable[[str], object]) -> None:
    """Tries the agents that are none of ours by `check_agent`.

    Raises:
        UsageError: one breaks the contract; the message has all that is wrong with it.
    """
    for name in dict.fromkeys(cell.config["agent"] for cell in cells if cell.own_agent):
        say(f"checking the agent {name} …")
        failed = [result for result in agents.check_agent(agents.load_agent(name)) if result.failed]
        if failed:
            wrong = "\n".join(f"  {result.name}: {result.message}" for result in failed)
            raise UsageError(
                f"the agent {name!r} breaks the contract of agents.base.Agent, so it is not run:\n{wrong}\n"
                f"`textenv check {name}` tries it again; --no-check runs it all the same"
            )


def run(cells: Sequence[Cell], engine: Engine, folder: ResultsFolder, board: Board) -> None:
    """Runs the cells and writes the rows of each one when it ends.

    Raises:
        DiskError: rows cannot be written; what was written before is kept.
        KeyboardInterrupt: likewise.
    """
    with closing(engine.outcomes(cells, board.running)) as outcomes:
        for outcome in outcomes:
            folder.add(outcome.cell.id, outcome.rows)
            board.ended(outcome)
    folder.fold()
    folder.clear_work()
