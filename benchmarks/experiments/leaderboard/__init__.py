"""Which agent comes nearest to the best that can be reached, in as many tokens and labels?"""

from benchmarks.experiments import Experiment

EXPERIMENT = Experiment(
    question="Which agent comes nearest to the optimum, in as many tokens and labels?",
    factor="agent",
)
