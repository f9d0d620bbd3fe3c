"""What learns: policies, algorithms and the RLHF loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from textenv import plugins

if TYPE_CHECKING:
    from agents.agent_check import check_agent as check_agent

__all__ = ["AGENTS", "REWARDS", "check_agent", "load_agent"]

AGENTS: dict[str, str] = {
    "ppo": "agents.ppo:PPO",
    "ppo-ptx": "agents.ppo_ptx:PPOPtx",
    "a2c": "agents.a2c:A2C",
    "reinforce": "agents.reinforce:Reinforce",
    "rloo": "agents.rloo:RLOO",
    "grpo": "agents.grpo:GRPO",
    "dr-grpo": "agents.dr_grpo:DrGRPO",
    "nlpo": "agents.nlpo:NLPO",
    "sft": "agents.sft:SFT",
    "joint": "agents.joint:Joint",
    "context-distillation": "agents.context_distillation:ContextDistillation",
    "expert-iteration": "agents.expert_iteration:ExpertIteration",
    "conditioned": "agents.conditioned:Conditioned",
    "best-of-n": "agents.best_of_n:BestOfN",
    "dpo": "agents.dpo:DPO",
    "online-dpo": "agents.online_dpo:OnlineDPO",
}
"""Name of each agent and where its class is; a new agent is one file and one line here."""

REWARDS: dict[str, str] = {
    "learned": "a reward model learned from the rater's comparisons",
    "gold": "the task's true utility",
    "vader": "VADER's sentiment of an English text (extra: english)",
}
"""Rewards that the loop knows by name; a reward model's folder and module:callable work too."""


def load_agent(name: str) -> type[Any]:
    """The class of an agent, imported only now because learning needs heavy libraries.

    Args:
        name: one of `AGENTS`, one that an installed distribution brings, or "module:Class".

    Raises:
        UsageError: no agent has this name, or what it names cannot be imported or is no agent.
    """
    if name in AGENTS:
        module, _, attribute = AGENTS[name].partition(":")
        ours: type[Any] = getattr(importlib.import_module(module), attribute)
        return ours
    theirs = plugins.load("agent", name, AGENTS)

    from agents.base import check_agent_class

    return check_agent_class(theirs, name)


def __getattr__(name: str) -> Any:
    if name == "check_agent":
        from agents.agent_check import check_agent

        return check_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
