"""What do the raters' noise and bias cost the policy that comes out?"""

from benchmarks.experiments import Experiment
from reward_models.raters import RATERS

EXPERIMENT = Experiment(
    question="What does it cost the policy who judges?",
    factor="rater",
    # All of them, against the truth itself, which comes first.
    preset={"raters": ("gold", *RATERS)},
)
