"""How people rank, approve and score responses, by the same parts by which they compare two.

What a comparison is to Bradley and Terry's model, a ranking is to Plackett's and Luce's (with two responses they are
the same), and an approval or a score to a logistic model with thresholds on the utility.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from reward_models.feedback import HIGHEST_SCORE, Feedback
from reward_models.raters.crowd import Crowd
from reward_models.raters.decision import Mistake, RandomClicker, Rationality, Skip
from reward_models.raters.drift import Fatigue
from reward_models.raters.judge import SECONDS_PER_HOUR, Questions, choice, seen
from reward_models.raters.material import Material
from reward_models.schedules import people, schedule, sources


class Standard(NamedTuple):
    """What people measure single responses against, in units of utility."""

    middle: float
    """A response as good as this has even chances of thumbs up, and of a score of 4 the best one."""
    width: float = 1.0
    """From one score to the next."""


def rank(crowd: Crowd, material: Material, questions: Questions, rng: np.random.Generator) -> Float[np.ndarray, "n k"]:
    """Ranks k responses by the model of Plackett (1975) and Luce (1959).

    P(y₁ ≻ … ≻ y_k) = Π_i e^(βu_i) / Σ_{j≥i} e^(βu_j), drawn as the order of βu + Gumbel noise (Yellott 1977). Random
    clicks and lost attention give any order, a mistake the opposite one, so that two responses are ranked as a
    comparison is answered; what people remember of earlier answers has no part in it.

    Returns:
        Ranks in the order shown, 1 for the best; NaN where the question was skipped.
    """
    own, utility = seen(crowd, material, questions)
    n, k = utility.shape
    gumbel = rng.gumbel(size=(n, k))
    uniform = rng.random((n, 2))
    beta = _rationality(crowd, questions)
    with np.errstate(invalid="ignore"):
        noisy = np.where(np.isinf(beta), utility, beta * utility + gumbel)
    # The last key is the first to sort by; noise decides between equals.
    best_first = np.lexsort((-gumbel, -noisy), axis=1)
    lapsed = uniform[:, 0] >= _attention(crowd, questions)
    best_first[lapsed] = np.argsort(-gumbel[lapsed], axis=1)
    wrong = uniform[:, 1] < _mistake(crowd, questions)
    best_first[wrong] = best_first[wrong, ::-1]
    ranks = np.empty((n, k))
    np.put_along_axis(ranks, best_first, np.arange(1.0, k + 1)[None], axis=1)
    return _without_skipped(crowd, questions, own, ranks)


def approve(
    crowd: Crowd, material: Material, questions: Questions, standard: Standard, rng: np.random.Generator
) -> Float[np.ndarray, "n 1"]:
    """Thumbs up or down: P(up) = σ(β·(u − middle)), spoiled like a comparison's probability.

    The model of unpaired feedback in Ethayarajh et al. 2024 ("KTO"), the middle being their reference point.

    Returns:
        1 for up and 0 for down; NaN where the question was skipped.
    """
    own, utility = seen(crowd, material, questions)
    up = choice(crowd, questions, utility[:, 0] - standard.middle)
    value = (rng.random(len(questions)) < up).astype(float)[:, None]
    return _without_skipped(crowd, questions, own, value)


def score(
    crowd: Crowd, material: Material, questions: Questions, standard: Standard, rng: np.random.Generator
) -> Float[np.ndarray, "n 1"]:
    """Scores from 1 to 7 by the graded response model: P(score > s) = σ(β·(u − c_s)), c_s = middle + width·(s − 3.5).

    Samejima 1969; as proportional odds McCullagh 1980. A random click gives any score, a mistake 8 less the score.

    Returns:
        The scores; NaN where the question was skipped.
    """
    own, utility = seen(crowd, material, questions)
    n = len(questions)
    noise = rng.logistic(size=n)
    uniform = rng.random((n, 2))
    clicked = rng.integers(1, HIGHEST_SCORE + 1, size=n)
    cuts = standard.middle + standard.width * (np.arange(1, HIGHEST_SCORE) - HIGHEST_SCORE / 2)
    beta = _rationality(crowd, questions)[:, 0]
    with np.errstate(divide="ignore"):
        felt = utility[:, 0] + np.where(np.isinf(beta), 0.0, noise / beta)
    value = 1.0 + (felt[:, None] > cuts).sum(axis=1)
    value = np.where(uniform[:, 0] < _attention(crowd, questions), value, clicked)
    value = np.where(uniform[:, 1] < _mistake(crowd, questions), HIGHEST_SCORE + 1 - value, value)
    return _without_skipped(crowd, questions, own, value[:, None])


def gather(
    form: Literal["ranking", "thumbs", "score"],
    crowd: Crowd,
    material: Material,
    items: Int[np.ndarray, "m k"],
    rng: np.random.Generator,
    *,
    standard: Standard | None = None,
    raters_per_item: int = 1,
    money: float = math.inf,
) -> Feedback:
    """Has items ranked, approved or scored by different people each.

    Args:
        form: how.
        crowd: the people.
        material: the responses.
        items: rows of the material; one a question, but for a ranking.
        rng: draws who is asked, the orders and the answers.
        standard: what single responses are measured against; None is the mean utility of the material.
        raters_per_item: how many people are asked about each item.
        money: what may be spent.

    Raises:
        ValueError: a ranking of one response, or an approval or a score of several.
        UsageError: as `reward_models.schedules.schedule` and `reward_models.raters.judge.seen`.
    """
    if (items.shape[1] > 1) != (form == "ranking"):
        raise ValueError(f"{items.shape[1]} responses a question are wrong for {form}")
    questions, item, order, _ = schedule(crowd, material, items, rng, raters_per_item=raters_per_item, money=money)
    if form == "ranking":
        value = rank(crowd, material, questions, rng)
    else:
        standard = standard or Standard(float(material.utility.mean()))
        value = (approve if form == "thumbs" else score)(crowd, material, questions, standard, rng)
    n, k = value.shape
    names, groups = people(crowd, questions.rater)
    return Feedback(
        question=np.repeat(np.arange(n), k),
        form=np.full(n * k, form, dtype=object),
        item=np.repeat(item, k),
        response=order.ravel(),
        position=np.tile(np.arange(k, dtype=np.int32), n),
        value=value.astype(np.float32).ravel(),
        rater=np.repeat(names, k),
        group=np.repeat(groups, k),
        session=np.repeat(questions.session, k),
        session_time=np.repeat(questions.session_time, k),
        length=material.lengths[questions.shown].astype(np.int32).ravel(),
        source=sources(material, questions.shown).ravel(),
        utility=material.utility[questions.shown].astype(np.float32).ravel(),
    )


def _rationality(crowd: Crowd, questions: Questions) -> Float[np.ndarray, "n 1"]:
    part = crowd.part(Rationality, questions.rater) or Rationality()
    return np.broadcast_to(part.value, len(questions))[:, None]


def _attention(crowd: Crowd, questions: Questions) -> Float[np.ndarray, " n"]:
    """The probability that the question is heeded at all: what clicks and fatigue leave of certainty, from 1/2 to 1."""
    sure = np.ones(len(questions))
    if clicker := crowd.part(RandomClicker, questions.rater):
        sure = clicker(sure)
    if fatigue := crowd.part(Fatigue, questions.rater):
        sure = fatigue(sure, questions.session_time / SECONDS_PER_HOUR)
    return 2 * sure - 1


def _mistake(crowd: Crowd, questions: Questions) -> Float[np.ndarray, " n"]:
    part = crowd.part(Mistake, questions.rater) or Mistake()
    return np.broadcast_to(part.value, len(questions))


def _without_skipped(
    crowd: Crowd, questions: Questions, own: Float[np.ndarray, "n k"], value: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, "n k"]:
    if skip := crowd.part(Skip, questions.rater):
        value[skip(own)] = np.nan
    return value
