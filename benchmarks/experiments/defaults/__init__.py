"""With which settings does each agent learn best? The sweep that its defaults are held against.

One factor at a time is moved from the defaults: the step size, how often a batch is used, how it is made up (as many
responses of fewer or more prompts) and what the critic adds. Another task or a budget of its own is a flag away.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.experiments import Experiment

STEP_SIZES = (
    {"learning_rate": 1e-4},
    {"learning_rate": 2.5e-4},
    {"learning_rate": 5e-4},
    {"learning_rate": 1e-3},
    {"learning_rate": 2e-3},
)
PASSES = ({"n_epochs": 1}, {"n_epochs": 2}, {"n_epochs": 4})
BATCHES = ({"n_prompts": 8, "group_size": 8}, {"n_prompts": 32, "group_size": 2}, {"n_prompts": 32, "group_size": 4})
CRITIC = ({"gae_lambda": 1.0}, {"value_learning_rate": 1e-3})

TRIED: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "ppo": ({}, *STEP_SIZES, *PASSES, *BATCHES, *CRITIC),
    "a2c": ({}, *STEP_SIZES, *BATCHES, *CRITIC),
    "rloo": ({}, *STEP_SIZES, *PASSES, *BATCHES),
    "grpo": ({}, *STEP_SIZES, *PASSES, *BATCHES),
}

EXPERIMENT = Experiment(
    question="With which settings does each agent come nearest to the optimum?",
    preset={
        "agents": tuple(TRIED),
        "tasks": ("concierge",),
        "raters": ("gold",),
        "tokens": 40_000,
        "test_prompts": 64,
        "test_samples": 32,
    },
    agent_settings=TRIED,
)
