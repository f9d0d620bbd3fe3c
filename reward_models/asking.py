"""How questions are put to raters, and what is done about those who cannot be relied on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from reward_models.audit import AuditConfig, audit
from reward_models.calibration import gold_answers, trusted
from reward_models.consensus import METHODS
from reward_models.labels import Labels
from reward_models.raters.population import Recruiting
from reward_models.response_consensus import RESPONSE_METHODS
from reward_models.schedules import Order
from textenv.errors import TextenvError, UsageError, unknown_name

CONSENSUSES = (*METHODS, *RESPONSE_METHODS)
"""What several people's answers can come to."""

Exclusion = Literal["none", "gold", "audit"]
"""none: everybody's answers count.
gold: not those of people of whom gold questions say that they are surely of little use.
audit: not those of people whom an audit says to drop (`reward_models.audit`).
"""

Reliability = Literal["none", "majority", "dawid-skene", "crowd-bt", "gold"]
"""none: what is learned from is the consensus.
Otherwise each answer by itself, as far as its rater can be relied on by this method of `reward_models.consensus`.
"""


@dataclass(frozen=True)
class Asking:
    """How each comparison is put to people, and what their answers come to.

    Raises:
        UsageError: a number is out of its range, a name is not known, or two settings do not go together.
    """

    raters_per_item: int = 1
    """How many people answer each pair."""
    consensus: str = "mean"
    """What their answers come to, one of `CONSENSUSES`."""
    gold_rate: float = 0.0
    """Share of the pairs whose right answer is known, by which people can be judged."""
    recruiting: Recruiting | None = None
    """The rule by which people come, in place of the population's own."""
    order: Order = "random"
    """Which of two responses is shown first."""
    repeat_rate: float = 0.0
    """Share of the answers that are asked for once more of the same person, in the other order."""
    training_questions: int = 0
    """Gold questions by which each one is trained before the work, paid for like other answers."""
    exclude: Exclusion = "none"
    """Whose answers are left out."""
    reliability: Reliability = "none"
    """By which estimate each answer is weighed and learned from by itself."""

    def __post_init__(self) -> None:
        for name, least in (("raters_per_item", 1), ("training_questions", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}, expected {least} or more")
        for name in ("gold_rate", "repeat_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected a number in [0, 1]")
        choices = {"consensus": CONSENSUSES, "order": get_args(Order), "exclude": get_args(Exclusion),
                   "reliability": get_args(Reliability)}  # fmt: skip
        if self.recruiting is not None:
            choices["recruiting"] = get_args(Recruiting)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), known)
        for name in ("consensus", "exclude", "reliability"):
            if getattr(self, name) == "gold" and self.gold_rate == 0:
                raise UsageError(f"the {name} 'gold' judges people by gold questions; raise gold_rate above 0")
        if self.reliability != "none" and self.consensus != "mean":
            raise UsageError(
                f"with the reliability {self.reliability!r} each answer is learned from by itself, so nothing is left "
                f"for the consensus {self.consensus!r}; leave one of them out"
            )

    def changed(self) -> list[str]:
        """The settings that are not left at their defaults."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


PLAINLY = Asking()
"""One answer an item, and nothing done about anything."""


def excluded(labels: Labels, rule: Exclusion) -> list[str]:
    """Whose answers are to be left out.

    Args:
        labels: everybody's.
        rule: see `Exclusion`.

    Raises:
        TextenvError: that is everybody who answered anything, or every question was skipped.
    """
    if rule == "none":
        return []
    if rule == "gold":
        answers = gold_answers(labels)
        names = [str(name) for name, kept in zip(answers.raters, trusted(answers.posterior()), strict=True) if not kept]
    else:
        # Without resamples nothing is drawn.
        result = audit(labels, AuditConfig(resamples=0), np.random.default_rng(0))
        names = [each.rater for each in result.verdicts if each.verdict == "drop"]
    answered = labels[~np.isnan(labels.label)]
    if set(answered.codes("rater")[0]) <= set(names):
        raise TextenvError(f"by {rule} nobody can be relied on, so that no answer is left; leave exclude out")
    return names
