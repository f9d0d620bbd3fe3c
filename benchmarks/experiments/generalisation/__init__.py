"""Does what was learned hold for prompts whose words never occur together in training, and on other tasks?"""

from benchmarks.experiments import Experiment
from benchmarks.experiments.generalisation.judge import judge

EXPERIMENT = Experiment(
    question="Does what was learned hold for unseen combinations of words, and does it harm other tasks?",
    transfer=True,
    judge=judge,
)
