"""`textenv check`: tries an agent on Exact-v0 and says in words what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from textenv.errors import UsageError

if TYPE_CHECKING:
    from agents.agent_check import CheckResult

MARKS = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "skipped": ("-", "yellow")}


@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """Which agent is tried, and how long it may learn."""

    agent: tyro.conf.Positional[str]
    """A name of `textenv list agents`, or module:Class."""
    tokens: int = 6_000
    """Response tokens after which it must have improved."""
    seed: int = 0
    """Makes the agents."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code: 0, or 1 where a check failed.

    Raises:
        UsageError: there is no such agent, or it lacks so much that it cannot be tried.
    """
    console = console or Console()
    options, agent_class, algorithm = parse(arguments)

    from agents import check_agent

    with console.status("") as status:

        def report(name: str, result: CheckResult | None) -> None:
            if result is None:
                status.update(f"{name} …")
            else:
                mark, style = MARKS[result.outcome]
                line = Text(f"{mark} {result.name}", style=style).append(f": {result.message}", style="default")
                console.print(line, soft_wrap=True, highlight=False)

        results = check_agent(agent_class, config=algorithm, seed=options.seed, tokens=options.tokens, report=report)
    failures = sum(result.failed for result in results)
    skipped = sum(result.outcome == "skipped" for result in results)
    total = f"{len(results) - failures - skipped} passed, {failures} failed, {skipped} skipped"
    console.print(total, style="bold red" if failures else "bold green", highlight=False)
    return 1 if failures else 0


def parse(arguments: Sequence[str]) -> tuple[CheckConfig, type[Any], Any]:
    """Reads the flags, the agent's own settings among them; its class and its settings come with it.

    Raises:
        UsageError: an unknown agent, or a number out of its range.
    """
    words = list(arguments)
    own: list[tuple[str, Any, Any]] = []
    agent_class: Any = None
    if words and not words[0].startswith("-"):
        from agents import load_agent
        from agents.setting import settings_class

        agent_class = load_agent(words[0])
        config_class: Any = settings_class(words[0], (field.name for field in dataclasses.fields(CheckConfig)))
        flat = Annotated[config_class, tyro.conf.arg(name="")]
        own = [("algorithm", flat, dataclasses.field(default_factory=config_class))]
    verb = dataclasses.make_dataclass("Check", own, bases=(CheckConfig,), frozen=True)
    options: Any = tyro.cli(verb, prog="textenv check", description=__doc__, args=words)
    if not own:
        raise UsageError("the agent comes first, since its settings are flags too: textenv check AGENT [flags]")
    if options.tokens < 1 or options.seed < 0:
        raise UsageError(
            f"--tokens is {options.tokens}, expected 1 or more; --seed is {options.seed}, expected 0 or more"
        )
    return options, agent_class, options.algorithm
