"""How many comparisons does a learned reward need?"""

from benchmarks.experiments import Experiment

BUDGETS = (4096, 1024, 256)

EXPERIMENT = Experiment(
    question="How much does the policy lose where fewer comparisons are bought?",
    factor="variant",
    variants={f"{budget} labels": {"labels": budget} for budget in BUDGETS},
    labels_needed=True,
)
