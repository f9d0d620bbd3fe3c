"""What do the raters' noise and bias cost the policy that comes out?"""

from benchmarks.experiments import Experiment

EXPERIMENT = Experiment(
    question="What does it cost the policy who judges?",
    factor="rater",
)
