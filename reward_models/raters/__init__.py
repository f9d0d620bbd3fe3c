"""Simulated raters whose noise and bias are known, alone and in populations."""

from reward_models.raters.presets import RATERS, RaterPreset, load_rater
from reward_models.raters.rater import Compares, Perceives, Rater

__all__ = ["RATERS", "Compares", "Perceives", "Rater", "RaterPreset", "load_rater"]
