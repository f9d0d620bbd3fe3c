"""Gold questions: what their answers say of each rater, and what to do about it.

A gold question's answer is known to whoever asks. Right and wrong answers are draws of one probability,
the rater's reliability, so that with a Beta prior the posterior is Beta again (Gelman et al. 2013,
section 2.4). From it follow a weight, an exclusion, or more training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import betainc, betaincinv, digamma

from reward_models.labels import Labels
from reward_models.raters.crowd import Crowd, without_neutral
from reward_models.raters.parts import PARTS
from textenv.errors import UsageError, unknown_name


class BetaPosterior(NamedTuple):
    """Reliabilities of R raters: Beta(a_k, b_k)."""

    a: Float[np.ndarray, " R"]
    b: Float[np.ndarray, " R"]

    @property
    def mean(self) -> Float[np.ndarray, " R"]:
        """E[reliability]."""
        mean: Float[np.ndarray, " R"] = self.a / (self.a + self.b)
        return mean

    def above(self, threshold: float) -> Float[np.ndarray, " R"]:
        """Probability that each reliability is above `threshold`, in [0, 1]."""
        above: Float[np.ndarray, " R"] = 1 - betainc(self.a, self.b, threshold)
        return above

    def interval(self, level: float = 0.95) -> Float[np.ndarray, "R 2"]:
        """The central interval that holds each reliability with the probability `level`."""
        tail = (1 - level) / 2
        return np.stack([betaincinv(self.a, self.b, tail), betaincinv(self.a, self.b, 1 - tail)], axis=1)


class GoldAnswers(NamedTuple):
    """How R raters did on gold questions; a tie against a decided answer is half right."""

    raters: list[str | None]
    """In the order of their first label of any kind."""
    right: Float[np.ndarray, " R"]
    wrong: Float[np.ndarray, " R"]

    def posterior(self, a: float = 1.0, b: float = 1.0) -> BetaPosterior:
        """What is known of each reliability.

        Args:
            a: the prior's; a − 1 right answers before the first question. 1 and 1 take every reliability for
                as likely as every other.
            b: the same for wrong answers.

        Raises:
            UsageError: a or b is not above 0.
        """
        if not (a > 0 and b > 0):
            raise UsageError(f"a Beta prior needs a and b above 0, got {a} and {b}")
        return BetaPosterior(a + self.right, b + self.wrong)


def gold_answers(labels: Labels) -> GoldAnswers:
    """Counts right and wrong answers to gold questions; skipped ones count as neither."""
    raters, rater = labels.codes("rater")
    asked = labels.gold & ~np.isnan(labels.label)
    wrong = np.abs(labels.label - labels.gold_answer)[asked].astype(float)
    return GoldAnswers(
        raters,
        np.bincount(rater[asked], 1 - wrong, len(raters)),
        np.bincount(rater[asked], wrong, len(raters)),
    )


def weights(posterior: BetaPosterior) -> Float[np.ndarray, " R"]:
    """E[log(p/(1 − p))] = ψ(a) − ψ(b): how much each rater's vote counts, in nats.

    Log-odds are the weights of the best decision on a two-sided question (Nitzan and Paroush 1982). A rater
    about whom nothing is known counts nothing, and an adversary the other way round.
    """
    weight: Float[np.ndarray, " R"] = digamma(posterior.a) - digamma(posterior.b)
    return weight


def weighted_vote(
    item: Int[np.ndarray, " n"],
    rater: Int[np.ndarray, " n"],
    label: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " R"],
) -> Float[np.ndarray, " I"]:
    """Probability that each item's first is better, if raters err independently: σ(Σ w_k·(2·label − 1)).

    Args:
        item: what each answer is about, numbered from 0 without gaps.
        rater: who gave it, numbered likewise.
        label: in [0, 1], 1 for the item's first.
        weight: log-odds of each rater's reliability.
    """
    odds = np.bincount(item, weight[rater] * (2 * label - 1))
    vote: Float[np.ndarray, " I"] = 1 / (1 + np.exp(-odds))
    return vote


def trusted(posterior: BetaPosterior, useful: float = 0.6, confidence: float = 0.95) -> Bool[np.ndarray, " R"]:
    """Which raters to keep: all but those whose reliability is below `useful` with the probability `confidence`.

    Raises:
        UsageError: one of the two is no probability.
    """
    for name, value in (("useful", useful), ("confidence", confidence)):
        if not 0 <= value <= 1:
            raise UsageError(f"{name} must be a probability in [0, 1], got {value}")
    return posterior.above(useful) > 1 - confidence


class Training(NamedTuple):
    """Raters after training, and its price."""

    parameters: dict[str, Float[np.ndarray, "R ..."]]
    labels: int
    """Gold questions that were answered, out of the same budget as other labels."""


def train(
    parameters: Mapping[str, Float[np.ndarray, "R ..."]],
    goals: Mapping[str, float],
    questions: Int[np.ndarray, " R"],
    pace: float = 20.0,
) -> Training:
    """Raters after gold questions whose answers they were told: goal + (start − goal)·exp(−questions/pace).

    The exponential learning curve of one person (Heathcote, Brown and Mewhort 2000).

    Args:
        parameters: of R simulated raters, by name, such as rationality and mistake.
        goals: the value that much training leads to, by name; other parameters stay as they are.
        questions: how many each rater was trained on.
        pace: questions after which 1 − 1/e of the way is gone.

    Raises:
        UsageError: a goal has no parameter, a number of questions is below 0, or `pace` is not above 0.
    """
    for name in goals.keys() - parameters.keys():
        raise unknown_name("parameter of the raters", name, parameters)
    if bool((questions < 0).any()) or not pace > 0:
        raise UsageError(f"questions must be 0 or more and pace above 0, got {questions.min()} and {pace}")
    changed = {}
    for name, goal in goals.items():
        start = np.asarray(parameters[name], float)
        left = np.exp(-questions / pace).reshape(-1, *[1] * (start.ndim - 1))
        changed[name] = goal + (start - goal) * left
    return Training({**parameters, **changed}, int(questions.sum()))


TAUGHT = ("blindness", "halo", "weights", "length_bias", "position_bias", "confirmation", "sycophancy", "mistake",
          "clicker")  # fmt: skip
"""Parts that training moves towards their neutral values, the task's own weights among them. How clearly somebody sees
small differences, how much one reads and what tires is no matter of being told the right answers; nor is ill will."""


class TrainedCrowd(NamedTuple):
    """People after training, and its price."""

    crowd: Crowd
    labels: int
    """Gold questions that were answered."""
    cost: float
    """In money."""


def trained(crowd: Crowd, questions: int) -> TrainedCrowd:
    """People after so many gold questions each, whose answers they were told.

    Raises:
        UsageError: nobody has a part that training changes.
    """
    goals = {key: PARTS[key].neutral() for key in TAUGHT if key in crowd.traits}
    if not goals:
        raise UsageError(
            f"training would change nobody: it acts on {', '.join(TAUGHT)}, and these raters have none of them; leave "
            "training_questions out"
        )
    training = train(crowd.traits, goals, np.full(len(crowd), questions))
    traits = without_neutral(training.parameters)
    return TrainedCrowd(replace(crowd, traits=traits), training.labels, questions * float(crowd.cost.sum()))
