"""Asking a rater: which pairs are shown, in which order, and for how many labels."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reward_models.raters.rater import Compares, Perceives
from reward_models.sessions import SECONDS_PER_DECISION, SECONDS_PER_TOKEN
from textenv.errors import TextenvError, UsageError
from textenv.imports import users_code
from textenv.preferences import Preferences
from textenv.responses import Responses


class LabelBudget:
    """A number of labels that can be spent once and is never overspent."""

    def __init__(self, total: int) -> None:
        if total < 0:
            raise UsageError(f"a label budget is 0 or more, got {total}")
        self.total = total
        self.spent = 0

    @property
    def remaining(self) -> int:
        """Labels that can still be bought."""
        return self.total - self.spent

    def take(self, wanted: int) -> int:
        """Spends up to `wanted` labels and returns how many were granted."""
        if wanted < 0:
            raise ValueError(f"cannot take {wanted} labels")
        granted = min(wanted, self.remaining)
        self.spent += granted
        return granted


def compare(
    responses: Responses, utility: Float[Tensor, " B"], rater: Compares, budget: LabelBudget, rng: np.random.Generator
) -> Preferences:
    """Lets a rater compare random pairs of different responses to the same prompt in one session.

    The budget is spread evenly: every prompt's first pair comes before any prompt's second. Which of
    a pair is shown first is a coin's decision. No pair is asked twice, and responses that are
    identical token for token are never compared. A session's clock starts at 0 and each label takes
    the time to read the prompt and both responses, and to decide.

    Args:
        responses: k ≥ 2 responses to each of N prompts.
        utility: the true utility of each response.
        rater: answers.
        budget: pays one label a comparison; fewer are spent where no pairs are left.
        rng: draws pairs, positions and answers.

    Returns:
        The comparisons in the order in which they were asked.

    Raises:
        UsageError: k < 2, or the rater failed.
        TextenvError: no prompt has two different responses.
    """
    asked = random_pairs(responses, rng)
    shown = torch.tensor(asked[: budget.take(len(asked))], dtype=torch.long).reshape(-1, 2)
    swapped = torch.from_numpy(rng.random(len(shown)) < 0.5)
    shown = torch.where(swapped[:, None], shown.flip(1), shown)

    first, second = shown.unbind(dim=1)
    prompts = responses.prompts[first // responses.group_size]
    tokens = prompts.mask.sum(dim=1) + responses.lengths[first] + responses.lengths[second]
    seconds = SECONDS_PER_DECISION + SECONDS_PER_TOKEN * tokens.double()
    answers = ask(rater, responses, utility.float(), shown, rng)
    return Preferences(
        Responses(prompts, responses.ids[first], responses.mask[first]),
        Responses(prompts, responses.ids[second], responses.mask[second]),
        label=answers.label,
        rater=[rater.name] * len(shown),
        session_time=seconds.cumsum(dim=0),
        utility=utility.float()[shown],
        probability=answers.probability,
    )


def random_pairs(responses: Responses, rng: np.random.Generator) -> list[tuple[int, int]]:
    """All pairs of different responses to one prompt, every prompt's first pair before any prompt's second.

    Args:
        responses: k ≥ 2 responses to each of N prompts; two that are identical token for token are no pair.
        rng: draws the order of the prompts, and that of each one's pairs.

    Returns:
        Rows of the responses.

    Raises:
        UsageError: k < 2.
        TextenvError: no prompt has two different responses.
    """
    k = responses.group_size
    if k < 2:
        raise UsageError(f"comparing needs at least 2 responses to each prompt, got {k}")
    texts = responses.to_lists()
    rounds: list[list[tuple[int, int]]] = [[] for _ in range(k * (k - 1) // 2)]
    for prompt in rng.permutation(len(responses.prompts)):
        rows = range(prompt * k, (prompt + 1) * k)
        pairs = [pair for pair in combinations(rows, 2) if texts[pair[0]] != texts[pair[1]]]
        for turn, chosen in enumerate(rng.permutation(len(pairs))):
            rounds[turn].append(pairs[chosen])
    asked = [pair for turn in rounds for pair in turn]
    if not asked:
        raise TextenvError(
            "no prompt has two different responses, so there is nothing to compare; "
            "sample more responses to each prompt or at a higher temperature"
        )
    return asked


class Answers(NamedTuple):
    """What a rater says of n pairs."""

    label: Float[Tensor, " n"]
    """1.0 for the first, 0.0 for the second."""
    probability: Float[Tensor, " n"]
    """That it says "the first"."""


def ask(
    rater: Compares,
    responses: Responses,
    utility: Float[Tensor, " B"],
    pairs: Int[Tensor, "n 2"],
    rng: np.random.Generator,
) -> Answers:
    """Which of each pair a rater prefers, by how good the two seem to it.

    Args:
        rater: answers.
        responses: B of them.
        utility: how good each one is.
        pairs: rows of `responses`, first the one that is shown first.
        rng: draws the answers.

    Raises:
        UsageError: a method of the rater failed, or what it returned is no answer.
    """
    with users_code(f"the rater {rater.name!r} failed", "reward_models.raters.Compares tells what a rater returns"):
        if isinstance(rater, Perceives):
            utility = _numbers(rater, "perceive", rater.perceive(responses, utility), len(responses))
        first, second = utility[pairs].unbind(dim=1)
        label = _numbers(rater, "label", rater.label(first, second, rng), len(pairs), 1.0)
        chance = rater.preference_probability(first, second)
        probability = _numbers(rater, "preference_probability", chance, len(pairs), 1.0)
    return Answers(label, probability)


def _numbers(
    rater: Compares, method: str, returned: object, count: int, largest: float | None = None
) -> Float[Tensor, " n"]:
    """What a method of a rater returned, if it is `count` finite numbers, from 0 to `largest` if there is one."""
    try:
        values = torch.as_tensor(returned, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        values = torch.tensor(torch.nan)
    right = values.isfinite() if largest is None else (values >= 0) & (values <= largest)
    if values.shape != (count,) or not bool(right.all()):
        wanted = "finite numbers" if largest is None else f"numbers from 0 to {largest:g}"
        raise UsageError(f"{method} of the rater {rater.name!r} must return {count} {wanted}; it returned {returned!r}")
    return values
