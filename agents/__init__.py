"""What learns: policies, algorithms and the RLHF loop."""

from __future__ import annotations

import importlib
from typing import Any

from textenv.errors import unknown_name

AGENTS: dict[str, str] = {
    "ppo": "agents.ppo:PPO",
    "a2c": "agents.a2c:A2C",
}
"""Name of each agent and where its class is; a new agent is one file and one line here."""

REWARDS: dict[str, str] = {
    "learned": "a reward model learned from the rater's comparisons",
    "gold": "the task's true utility",
    "vader": "VADER's sentiment of an English text (extra: english)",
}
"""Rewards that the loop knows by name; a reward model's folder and module:callable work too."""


def load_agent(name: str) -> type[Any]:
    """The class of the agent called `name`, imported only now because learning needs heavy libraries.

    Raises:
        UsageError: no agent has this name.
    """
    if name not in AGENTS:
        raise unknown_name("agent", name, AGENTS)
    module, _, attribute = AGENTS[name].partition(":")
    agent: type[Any] = getattr(importlib.import_module(module), attribute)
    return agent
