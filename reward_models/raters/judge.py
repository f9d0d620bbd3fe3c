"""What people answer: their parts put together, in the order perception, utility, decision, drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from reward_models.raters.crowd import Crowd
from reward_models.raters.decision import Mistake, RandomClicker, Rationality, Skip, Tie
from reward_models.raters.drift import Fatigue, Recency, WeightDrift
from reward_models.raters.material import Material
from reward_models.raters.perception import Blindness, Halo, LimitedReading, Myopia
from reward_models.raters.utility import (
    Adversary,
    ConfirmationBias,
    Expectation,
    LengthBias,
    PositionBias,
    Sycophancy,
    Taste,
)

CHUNK = 16_384
"""Questions that are judged at a time; bounds the memory."""
SECONDS_PER_HOUR = 3600.0

Rows = Int[np.ndarray, " m"] | slice
"""Some of n questions."""


@dataclass(frozen=True)
class Questions:
    """n questions about k responses each, in the order in which they are asked."""

    shown: Int[np.ndarray, "n k"]
    """Rows of the material, in the order in which they are shown."""
    rater: Int[np.ndarray, " n"]
    """Who is asked, a place in the crowd."""
    session: Int[np.ndarray, " n"]
    """Number of the rater's session."""
    session_time: Float[np.ndarray, " n"]
    """Seconds for which the session has lasted when the answer comes."""
    worked: Float[np.ndarray, " n"]
    """Seconds that the rater has worked in all its sessions."""
    agrees: Int[np.ndarray, " n"]
    """Which of the k responses, as they are shown, agrees with what the rater believes."""

    def __len__(self) -> int:
        return len(self.rater)

    def at(self, rows: Rows) -> Questions:
        """Some of the questions."""
        return Questions(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


class Seen(NamedTuple):
    """How good k responses are in n questions."""

    own: Float[np.ndarray, "n k"]
    """By the rater's own weights, seen aright."""
    utility: Float[np.ndarray, "n k"]
    """As they seem to the rater, biases included."""


class Verdicts(NamedTuple):
    """What n pairwise questions were answered with."""

    label: Float[np.ndarray, " n"]
    """1 for the first shown, 0 for the second, 0.5 for a tie, NaN where it was skipped; float32."""
    probability: Float[np.ndarray, " n"]
    """The label's expectation, NaN where it was skipped; float32."""


def seen(crowd: Crowd, material: Material, questions: Questions) -> Seen:
    """How good the responses of each question are, and how good they seem to who is asked.

    Args:
        crowd: the people.
        material: the responses.
        questions: n of them, of any number k of responses each.

    Raises:
        UsageError: somebody likes sycophancy, which the task does not know.
        ValueError: somebody judges by beginnings, which the material lacks.
    """
    shown, rater = questions.shown, questions.rater
    if not crowd.uses(Taste, WeightDrift, LimitedReading, Myopia, Blindness, Halo):
        own = utility = material.utility[shown]
    else:
        weights = material.weights[None]
        if taste := crowd.part(Taste, rater):
            weights = taste(weights)
        if drift := crowd.part(WeightDrift, rater):
            weights = drift(weights, questions.worked / SECONDS_PER_HOUR)
        attributes = material.attributes[shown]
        own = (attributes * weights[:, None]).sum(axis=-1)
        if crowd.needs_prefixes:
            attributes = _read(crowd, material, questions)
        if blindness := crowd.part(Blindness, rater):
            attributes = blindness(attributes)
        if halo := crowd.part(Halo, rater):
            attributes = halo(attributes)
        utility = (attributes * weights[:, None]).sum(axis=-1)
    if adversary := crowd.part(Adversary, rater):
        utility = adversary(utility)
    if length := crowd.part(LengthBias, rater):
        utility = length(utility, material.lengths[shown])
    if position := crowd.part(PositionBias, rater):
        utility = position(utility)
    if confirmation := crowd.part(ConfirmationBias, rater):
        utility = confirmation(utility, questions.agrees)
    if sycophancy := crowd.part(Sycophancy, rater):
        utility = sycophancy(utility, material.sycophantic[shown])
    return Seen(own, utility)


def _read(crowd: Crowd, material: Material, questions: Questions) -> Float[np.ndarray, "n k A"]:
    """The attributes of what is read and remembered of each response."""
    if material.prefixes is None:
        raise ValueError("people who read in parts need material with prefixes")
    shown = questions.shown
    read: Int[np.ndarray, "n k"] = material.lengths[shown]
    if reading := crowd.part(LimitedReading, questions.rater):
        read = reading(read)
    if myopia := crowd.part(Myopia, questions.rater):
        return myopia(material.prefixes[shown], read)
    attributes: Float[np.ndarray, "n k A"] = material.prefixes[shown, read]
    return attributes


def judge(crowd: Crowd, material: Material, questions: Questions, rng: np.random.Generator) -> Verdicts:
    """Lets people answer which of two responses is better.

    One uniform number a question is drawn, in their order. Where somebody's answers depend on those before,
    everybody's n-th questions are judged together.

    Args:
        crowd: the people.
        material: the responses.
        questions: n pairs.
        rng: draws the answers.

    Raises:
        UsageError, ValueError: as `seen`.
        ValueError: the questions are no pairs.
    """
    if questions.shown.shape[1] != 2:
        raise ValueError(f"questions about {questions.shown.shape[1]} responses are no pairs")
    n = len(questions)
    draws = rng.random(n)
    label, probability = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    memory = _Memory(crowd, material) if crowd.uses(Expectation, Recency) else None
    batches: Iterable[Rows] = _chunks(n) if memory is None else _turns(questions.rater)
    for rows in batches:
        now = questions.at(rows)
        own, utility = seen(crowd, material, now)
        difference = utility[:, 0] - utility[:, 1]
        if memory is not None:
            difference = difference + memory.lean(now)
        first = choice(crowd, now, difference)
        answer = (draws[rows] < first).astype(np.float32)
        if tie := crowd.part(Tie, now.rater):
            equal = tie(own)
            answer[equal] = first[equal] = 0.5
        if skip := crowd.part(Skip, now.rater):
            skipped = skip(own)
            answer[skipped] = first[skipped] = np.nan
        label[rows], probability[rows] = answer, first
        if memory is not None:
            memory.keep(now, answer)
    return Verdicts(label, probability)


def choice(crowd: Crowd, questions: Questions, difference: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The probability of the answer "the first", from how much better it seems; for questions that are decided."""
    rater = questions.rater
    first = (crowd.part(Rationality, rater) or Rationality())(difference)
    if clicker := crowd.part(RandomClicker, rater):
        first = clicker(first)
    if fatigue := crowd.part(Fatigue, rater):
        first = fatigue(first, questions.session_time / SECONDS_PER_HOUR)
    if mistake := crowd.part(Mistake, rater):
        first = mistake(first)
    return first


class _Memory:
    """What each one remembers of its own answers."""

    def __init__(self, crowd: Crowd, material: Material) -> None:
        self.crowd = crowd
        self.material = material
        sources = len(material.source_names)
        self.wins = np.zeros((len(crowd), sources))
        self.asked = np.zeros((len(crowd), sources), dtype=np.int64)
        self.last = np.zeros(len(crowd))
        self.session = np.zeros(len(crowd), dtype=np.int64)

    def lean(self, questions: Questions) -> Float[np.ndarray, " n"]:
        """What is added to u₁ − u₂ by the answers before; nobody is asked more than one of the questions."""
        rater, sources = questions.rater[:, None], self.material.sources[questions.shown]
        total = np.zeros(len(questions))
        if expectation := self.crowd.part(Expectation, questions.rater):
            bonus = expectation(self.wins[rater, sources], self.asked[rater, sources])
            total += bonus[:, 0] - bonus[:, 1]
        if recency := self.crowd.part(Recency, questions.rater):
            same_session = self.session[questions.rater] == questions.session
            total += recency(self.last[questions.rater] * same_session)
        return total

    def keep(self, questions: Questions, label: Float[np.ndarray, " n"]) -> None:
        """Remembers the answers; what was skipped leaves no trace."""
        sources = self.material.sources[questions.shown]
        answered: Bool[np.ndarray, " n"] = ~np.isnan(label)
        self.last[questions.rater[answered]] = 2 * label[answered] - 1
        self.session[questions.rater[answered]] = questions.session[answered]
        told = answered & (sources[:, 0] != sources[:, 1])
        for side, won in enumerate((label[told], 1 - label[told])):
            self.wins[questions.rater[told], sources[told, side]] += won
            self.asked[questions.rater[told], sources[told, side]] += 1


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def _turns(rater: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " m"]]:
    """Rows of everybody's first questions, of everybody's second, and so on."""
    order = np.argsort(rater, kind="stable")
    starts = np.flatnonzero(np.diff(rater[order], prepend=-1))
    counts = np.diff(starts, append=len(rater))
    turn = np.empty(len(rater), dtype=np.int64)
    turn[order] = np.arange(len(rater)) - np.repeat(starts, counts)
    by_turn = np.argsort(turn, kind="stable")
    return iter(np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]))
