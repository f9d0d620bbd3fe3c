"""What does each remedy against noise and bias of raters bring, used alone and at equal labels?

Ask it of a pool that needs them: `textenv bench --experiments remedies --raters crowd --seeds 5`.
"""

from benchmarks.experiments import Experiment
from reward_models.fitting import RewardModelConfig

THREE = {"order": "fixed", "raters_per_item": 3}
"""Answers to an item, so that there is something to put together."""

EXPERIMENT = Experiment(
    question="What does each remedy against the raters' noise and bias bring, at equal labels?",
    factor="variant",
    variants={
        "none": {"order": "fixed"},
        "random order": {"order": "random"},
        "balanced order": {"order": "balanced", "raters_per_item": 2},
        "stratified recruiting": {"order": "fixed", "recruiting": "stratified"},
        "mean of 3": THREE,
        "majority of 3": {**THREE, "consensus": "majority"},
        "dawid-skene": {**THREE, "consensus": "dawid-skene"},
        "crowd-bt": {**THREE, "consensus": "crowd-bt"},
        "groups": {"order": "fixed", "consensus": "groups"},
        "gold weights": {**THREE, "consensus": "gold", "gold_rate": 0.1},
        "gold exclusion": {"order": "fixed", "exclude": "gold", "gold_rate": 0.2},
        "audit exclusion": {**THREE, "exclude": "audit"},
        "training": {"order": "fixed", "training_questions": 5},
        "reliability weights": {**THREE, "reliability": "crowd-bt"},
        "demonstrations": {"order": "fixed", "demonstration_share": 0.2},
        "self-play": {"order": "fixed", "self_play_share": 0.25},
        "label smoothing": {"order": "fixed", "reward_model": RewardModelConfig(label_smoothing=0.1)},
        "flip correction": {"order": "fixed", "reward_model": RewardModelConfig(flip_rate=0.2)},
    },
    labels_needed=True,
)
