"""`check_agent`: does an agent keep the contract of `agents.base.Agent`? Tried on Exact-v0, and answered in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from agents.checks import interface, learning
from agents.checks.trial import Trial, Untested, global_state_kept
from textenv.errors import TextenvError
from textenv.imports import users_code


class CheckResult(NamedTuple):
    """What one check found."""

    name: str
    """What was tested."""
    outcome: Literal["passed", "failed", "skipped"]
    message: str
    """What was found; where it failed, what was wrong, what was expected and how to mend it."""

    @property
    def failed(self) -> bool:
        """Whether the agent breaks the contract here."""
        return self.outcome == "failed"


Report = Callable[[str, CheckResult | None], object]
"""Called with a check's name and None where it begins, and with its result where it ends."""


def check_agent(
    agent_class: Any,
    *,
    config: Any = None,
    data: Any = None,
    seed: int = 0,
    tokens: int = 6_000,
    report: Report | None = None,
) -> list[CheckResult]:
    """Tries whether an agent keeps the contract, and goes on after a failure.

    In a test of your own: `assert not [result for result in check_agent(MyAgent) if result.failed]`.

    Args:
        agent_class: the class, called as `agent_class(env, config, seed, data=None)`.
        config: the settings it is tried with; by default those of its `config_class`.
        data: what an agent that learns offline learns from; one that learns from preferences is given the truth's
            on Exact-v0 otherwise.
        seed: makes the agents.
        tokens: how many it may learn from until it must have improved.
        report: told how it goes.

    Returns:
        One result a check. Those that another failure makes pointless are skipped.
    """
    trial = Trial(agent_class, config, data, seed, tokens)
    results: dict[str, CheckResult] = {}
    with global_state_kept():
        for name, (check, needs) in CHECKS.items():
            if report is not None:
                report(name, None)
            missing = [need for need in needs if results[need].outcome != "passed"]
            if missing:
                result = CheckResult(name, "skipped", f"not tested, since it needs {' and '.join(missing)} to pass")
            else:
                result = _result(name, check, trial)
            results[name] = result
            if report is not None:
                report(name, result)
    return list(results.values())


def _result(name: str, check: Callable[[Trial], str], trial: Trial) -> CheckResult:
    try:
        with users_code("the agent raised an error", "agents.base.Agent tells what is called with what"):
            return CheckResult(name, "passed", check(trial))
    except Untested as nothing:
        return CheckResult(name, "skipped", str(nothing))
    except TextenvError as error:
        return CheckResult(name, "failed", str(error))


CHECKS: dict[str, tuple[Callable[[Trial], str], tuple[str, ...]]] = {
    "constructor": (interface.check_constructor, ()),
    "learn": (interface.check_learn, ("constructor",)),
    "reference is kept": (interface.check_reference, ("constructor",)),
    "predict": (interface.check_predict, ("constructor",)),
    "logprobs": (interface.check_logprobs, ("constructor",)),
    "determinism": (learning.check_determinism, ("constructor",)),
    "global random state": (learning.check_global_random_state, ("determinism",)),
    "save and load": (learning.check_save_and_load, ("constructor",)),
    "going on after load": (learning.check_going_on, ("learn", "determinism", "global random state", "save and load")),
    "gold is not read": (learning.check_gold, ("determinism",)),
    "improves": (learning.check_improves, ("constructor",)),
}
"""What is tested, in this order, and which checks must have passed before."""
