"""Does the truth go on rising while an agent learns longer from a learned reward (Gao et al. 2023)?

The report's figure of gold against the square root of the KL belongs to it.
"""

from benchmarks.experiments import Experiment

LENGTHS = (10_000, 40_000, 160_000)

EXPERIMENT = Experiment(
    question="Is the truth served by learning longer from a learned reward?",
    factor="variant",
    metric="gold_after",
    variants={f"{tokens} tokens": {"tokens": tokens} for tokens in LENGTHS},
    labels_needed=True,
)
