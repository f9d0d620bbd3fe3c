"""Does what was learned hold for prompts whose words never occur together in training, and on other tasks?"""

from benchmarks.experiments import Experiment
from benchmarks.experiments.generalisation.judge import judge

EXPERIMENT = Experiment(
    question="Does what was learned hold for unseen combinations of words, and does it harm other tasks?",
    # Tasks of one reference, so that each has others to be tried on; concierge and exact have a model to themselves.
    preset={"tasks": ("reviews", "summary", "translate", "classify")},
    transfer=True,
    judge=judge,
)
