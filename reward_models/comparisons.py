"""Asking a rater: which pairs are shown, in which order, and for how many labels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reward_models.raters import Rater
from textenv.errors import TextenvError, UsageError
from textenv.preferences import Preferences
from textenv.responses import Responses

SECONDS_PER_TOKEN = 60 / 238
"""Silent reading of English at 238 words a minute (Brysbaert 2019), a token taken as a word."""
SECONDS_PER_DECISION = 2.0
"""Time to make up one's mind and click: our assumption; nothing but simulated time depends on it."""


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
    responses: Responses, utility: Float[Tensor, " B"], rater: Rater, budget: LabelBudget, rng: np.random.Generator
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
    shown = torch.tensor(asked[: budget.take(len(asked))], dtype=torch.long).reshape(-1, 2)
    swapped = torch.from_numpy(rng.random(len(shown)) < 0.5)
    shown = torch.where(swapped[:, None], shown.flip(1), shown)

    first, second = shown.unbind(dim=1)
    prompts = responses.prompts[first // k]
    tokens = prompts.mask.sum(dim=1) + responses.lengths[first] + responses.lengths[second]
    seconds = SECONDS_PER_DECISION + SECONDS_PER_TOKEN * tokens.double()
    utilities = utility.float()[shown]
    return Preferences(
        Responses(prompts, responses.ids[first], responses.mask[first]),
        Responses(prompts, responses.ids[second], responses.mask[second]),
        label=rater.label(utilities[:, 0], utilities[:, 1], rng),
        rater=[rater.name] * len(shown),
        session_time=seconds.cumsum(dim=0),
        utility=utilities,
        probability=rater.preference_probability(utilities[:, 0], utilities[:, 1]).float(),
    )
