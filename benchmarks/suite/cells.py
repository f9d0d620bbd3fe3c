"""A cell: one run of the benchmark, named by all that its result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agents import AGENTS, load_agent
from agents.base import learns_from
from agents.rlhf import RLHFConfig
from agents.run_folder import version
from agents.setting import completed
from benchmarks.suite.agent_settings import Settings, config_of, named
from benchmarks.suite.rows import Row, contestant
from reward_models.raters import RATERS
from textenv import plugins
from textenv.errors import UsageError
from textenv.files import sha256
from textenv.tasks import TASKS

TRUTH = "gold"
"""What stands in a rater's place where the truth itself judges: it is the reward of agents that learn from rewards,
compares for those that learn from comparisons, and chooses the demonstrations of those that learn from such."""

TRUTHFUL_RATER = "oracle"
"""Compares as the truth does."""

AFTER_THE_REWARD = {"agent", "algorithm", "tokens", "beta", "max_kl", "test_prompts", "test_samples"}
"""Fields of a run's config that the stages up to the learned reward do not depend on."""


@dataclass(frozen=True)
class Cell:
    """One run: of an experiment, with an agent, a task, a rater, a seed and settings."""

    experiment: str
    variant: str
    """Level of what the experiment varies beside agents, tasks and raters; empty where it is nothing else."""
    settings: str
    """Of the agent, where several are tried, as tables call them."""
    rater: str
    """Who judges."""
    config: Mapping[str, Any]
    """The run's resolved config, as `RLHFConfig.to_json` gives it."""
    code: Mapping[str, str]
    """The SHA-256 of each file that the agent, the task or the rater is written in, where it is not ours."""
    transfer: bool = False
    """Whether the policy is tried on held-out prompts and on other tasks as well."""

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that no other cell and no other version has."""
        return _hash([self.experiment, self.variant, self.settings, self.rater, self.config, self.code, self.transfer])

    @property
    def contestant(self) -> str:
        """The agent, with its settings where several are tried."""
        return contestant(self.config["agent"], self.settings)

    @property
    def own_agent(self) -> bool:
        """Whether the agent is none of ours."""
        return self.config["agent"] not in AGENTS

    @cached_property
    def shared_with(self) -> str | None:
        """Equal for cells whose stages before learning are the same; None where there are none to share."""
        source = learns_from(load_agent(self.config["agent"]))
        if self.config["reward"] != "learned" or source == "demonstrations":
            return None
        loops = {field.name for field in dataclasses.fields(RLHFConfig)} - AFTER_THE_REWARD
        code = {name: value for name, value in self.code.items() if not name.startswith("agent ")}
        return _hash([{name: self.config[name] for name in sorted(loops)}, code, source])

    def identity(self) -> Row:
        """The columns that each of its rows begins with."""
        return {
            "cell": self.id,
            "experiment": self.experiment,
            "agent": self.config["agent"],
            "task": self.config["task"],
            "rater": self.rater,
            "variant": self.variant,
            "settings": self.settings,
            "seed": self.config["seed"],
        }

    def __str__(self) -> str:
        """As people call it."""
        words = (self.experiment, self.contestant, self.config["task"], self.rater, self.variant)
        return f"{' · '.join(word for word in words if word)} · seed {self.config['seed']}"


def _hash(values: object) -> str:
    text = json.dumps([version(), values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Axes:
    """What a sweep multiplies, and the settings that all its runs share."""

    agents: Sequence[str]
    tasks: Sequence[str]
    raters: Sequence[str]
    seeds: int
    """The seeds 0, 1, … below it."""
    settings: Mapping[str, Any]
    """Fields of `RLHFConfig` that are not left at their defaults."""
    agent_settings: Mapping[str, Sequence[Settings]] = field(default_factory=dict)
    """By agent the settings of its own that are tried; the others run with their defaults."""

    @property
    def contestants(self) -> Sequence[str]:
        """The agents, each with every one of its settings."""
        return [
            contestant(agent, named(settings))
            for agent in self.agents
            for settings in self.agent_settings.get(agent, ({},))
        ]


def cells_of(
    experiment: str, axes: Axes, variants: Mapping[str, Mapping[str, Any]], *, transfer: bool, labels_needed: bool
) -> tuple[list[Cell], list[str]]:
    """The cells of an experiment, and a line for each combination that makes no sense and is left out.

    Args:
        experiment: its name.
        axes: what is multiplied.
        variants: settings by the level of what the experiment varies.
        transfer: whether policies are tried on other prompts as well.
        labels_needed: whether the truth as reward is left out.

    Raises:
        UsageError: a name is not known, or a number is out of its range.
    """
    cells: list[Cell] = []
    left_out: list[str] = []
    for (variant, changes), task, rater, agent in itertools.product(
        variants.items(), axes.tasks, axes.raters, axes.agents
    ):
        why_not = _senseless(agent, rater, experiment, labels_needed)
        if why_not is not None:
            left_out.append(why_not)
            continue
        code = _code(agent, task, rater)
        for settings in axes.agent_settings.get(agent, ({},)):
            values: dict[str, Any] = {**axes.settings, **changes, **_judged(agent, rater)}
            algorithm = config_of(agent, settings)
            config = completed(RLHFConfig(task=task, agent=agent, algorithm=algorithm, **values)).to_json()
            cells += [
                Cell(experiment, variant, named(settings), rater, config | {"seed": seed}, code, transfer)
                for seed in range(axes.seeds)
            ]
    return cells, list(dict.fromkeys(left_out))


def _senseless(agent: str, rater: str, experiment: str, labels_needed: bool) -> str | None:
    """Why an agent is not run with a rater, or None where it is."""
    if labels_needed and rater == TRUTH:
        return f"{experiment} is not run with the truth as its judge: it varies what labels bring"
    if rater != TRUTH and learns_from(load_agent(agent)) == "demonstrations":
        return (
            f"{agent} is not run with raters: it learns from demonstrations, which the truth chooses (--raters {TRUTH})"
        )
    return None


def _judged(agent: str, rater: str) -> dict[str, Any]:
    """Fields of `RLHFConfig` by which an agent learns from what a rater, or the truth, says."""
    if rater != TRUTH:
        return {"rater": rater}
    source = learns_from(load_agent(agent))
    return {"rewards": {"reward": TRUTH}, "preferences": {"rater": TRUTHFUL_RATER}, "demonstrations": {}}[source]


def check_names(axes: Axes) -> None:
    """Refuses names that are not known, before anything heavy is done.

    Raises:
        UsageError: names the nearest ones that are.
    """
    for name in axes.tasks:
        if name == "text":
            raise UsageError(
                "the task text has prompts of your own and no known truth, so nothing can be compared on it"
            )
        _known("task", name, TASKS)
    for name in axes.agents:
        _known("agent", name, AGENTS)
    for name in axes.raters:
        _known("rater", name, (TRUTH, *RATERS))
    for what, several in (("agents", axes.agents), ("tasks", axes.tasks), ("raters", axes.raters)):
        double = {name for name in several if several.count(name) > 1}
        if double or not several:
            raise UsageError(f"--{what} {'names ' + ', '.join(double) + ' twice' if double else 'names nothing'}")


def _known(kind: plugins.Kind, name: str, ours: Iterable[str]) -> None:
    if name not in ours:
        plugins.target_of(kind, name, ours)


def _code(agent: str, task: str, rater: str) -> dict[str, str]:
    kinds: Sequence[tuple[plugins.Kind, str, Iterable[str]]] = (
        ("agent", agent, AGENTS),
        ("task", task, TASKS),
        ("rater", rater, (TRUTH, *RATERS)),
    )
    return {
        f"{kind} {plugins.called(file)}": sha256(file)
        for kind, name, ours in kinds
        for file in plugins.source_files(kind, name, ours)
    }
