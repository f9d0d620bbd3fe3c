"""How near to the optimum does every agent come on every task, and how soon?

Each learns from what it takes, as the truth has it: the true reward, comparisons that the truth decides, or
demonstrations that it chooses.
"""

from agents import AGENTS
from benchmarks.experiments import Experiment
from textenv.tasks import TASKS

EXPERIMENT = Experiment(
    question="How near to the optimum does each agent come on each task, learning from the truth, and how soon?",
    preset={"agents": tuple(AGENTS), "tasks": tuple(TASKS), "raters": ("gold",)},
)
