"""Comparisons in balance: in the order shown, and between where the responses come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int

from textenv.errors import UsageError
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses

DEMONSTRATION = "demonstration"
"""The rater of comparisons that nobody was asked about: whoever demonstrates prefers the demonstration."""


def counterbalanced(item: Int[np.ndarray, " n"], rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """Whether to show each question swapped: each item as often in either order, a coin deciding on an odd one.

    A leaning to what is shown first then cancels in an item's mean, where a coin for every question
    cancels it on average only (Zheng et al. 2023, "Judging LLM-as-a-judge", section 3.4).

    Args:
        item: which item each question is about.
        rng: draws.
    """
    order = rng.permutation(len(item))
    by_item = order[np.argsort(item[order], kind="stable")]
    sizes = np.unique(item, return_counts=True)[1]
    turn = np.arange(len(item)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    start = np.repeat(rng.integers(2, size=len(sizes)), sizes)
    swapped = np.empty(len(item), dtype=bool)
    swapped[by_item] = (turn + start) % 2 == 1
    return swapped


def against_demonstrations(demonstrations: Responses, samples: Responses, rng: np.random.Generator) -> Preferences:
    """Comparisons of demonstrations with a policy's own responses, which need no label: the demonstration is better.

    Ibarz et al. 2018 ("Reward learning from human preferences and demonstrations in Atari"); as
    self-play against the policy's last version: Chen et al. 2024 ("SPIN").

    Args:
        demonstrations: one to each of N prompts.
        samples: k of the policy's to each of the same prompts; those equal to the demonstration are left out.
        rng: draws which of the two is shown first.

    Raises:
        UsageError: the prompts differ, there is not one demonstration to each, or no sample differs from it.
    """
    if demonstrations.group_size != 1 or demonstrations.prompts.to_lists() != samples.prompts.to_lists():
        raise UsageError(
            f"comparing with demonstrations needs one to each prompt of the samples; got {len(demonstrations)} to "
            f"{len(demonstrations.prompts)} prompts and samples to {len(samples.prompts)}"
        )
    shown, sampled, prompts = demonstrations.to_lists(), samples.to_lists(), samples.prompts.to_lists()
    pairs = [(row // samples.group_size, row) for row in range(len(sampled))]
    pairs = [(prompt, row) for prompt, row in pairs if shown[prompt] != sampled[row]]
    if not pairs:
        raise UsageError("every sample is the demonstration itself, so there is nothing to compare")
    first = rng.random(len(pairs)) < 0.5
    return _preferences(
        [prompts[prompt] for prompt, _ in pairs],
        [shown[prompt] if leads else sampled[row] for (prompt, row), leads in zip(pairs, first, strict=True)],
        [sampled[row] if leads else shown[prompt] for (prompt, row), leads in zip(pairs, first, strict=True)],
        label=torch.from_numpy(first).float(),
        rater=[DEMONSTRATION] * len(pairs),
        session_time=torch.zeros(len(pairs), dtype=torch.float64),
        utility=torch.full((len(pairs), 2), torch.nan),
        probability=torch.full((len(pairs),), torch.nan),
    )


def balanced(
    parts: Sequence[Preferences], shares: Sequence[float], total: int, rng: np.random.Generator
) -> Preferences:
    """Comparisons of several kinds in set shares, drawn without replacement and in random order.

    Where a reward model learns from raters, demonstrations and self-play at once, the kind that is cheapest
    would otherwise drown the others.

    Args:
        parts: the kinds.
        shares: of each in the result, in relation to the others.
        total: comparisons wanted.
        rng: draws.

    Raises:
        UsageError: a share is below 0, all are 0, or a kind has too few comparisons for its share.
    """
    if len(shares) != len(parts) or min(shares, default=0) < 0 or not sum(shares) > 0 or total < 1:
        raise UsageError(
            f"{len(parts)} kinds need as many shares from 0 up, one above 0, and 1 comparison or more; "
            f"got {list(shares)} and {total}"
        )
    ends = np.rint(np.cumsum(shares) / np.sum(shares) * total).astype(int)
    counts = np.diff(ends, prepend=0)
    for kind, (part, count) in enumerate(zip(parts, counts, strict=True)):
        if count > len(part):
            raise UsageError(
                f"kind {kind} is to give {count} of {total} comparisons, but has {len(part)}; ask for fewer"
            )
    chosen = [
        part[torch.from_numpy(rng.choice(len(part), size=count, replace=False))]
        for part, count in zip(parts, counts, strict=True)
        if count
    ]
    return together(chosen)[torch.from_numpy(rng.permutation(total))]


def together(parts: Sequence[Preferences]) -> Preferences:
    """Comparisons of several kinds, one kind after the other."""
    return _preferences(
        [prompt for part in parts for prompt in part.prompts.to_lists()],
        [response for part in parts for response in part.first.to_lists()],
        [response for part in parts for response in part.second.to_lists()],
        label=torch.cat([part.label for part in parts]),
        rater=[rater for part in parts for rater in part.rater],
        session_time=torch.cat([part.session_time for part in parts]),
        utility=torch.cat([part.utility for part in parts]),
        probability=torch.cat([part.probability for part in parts]),
    )


def _preferences(
    prompts: list[list[int]],
    first: list[list[int]],
    second: list[list[int]],
    *,
    label: torch.Tensor,
    rater: list[str],
    session_time: torch.Tensor,
    utility: torch.Tensor,
    probability: torch.Tensor,
) -> Preferences:
    """Preferences from token lists; the mask keeps the padding out, so that any id will do for it."""
    asked = Prompts.from_lists(prompts, pad_id=0)
    return Preferences(
        Responses.from_lists(asked, first, pad_id=0),
        Responses.from_lists(asked, second, pad_id=0),
        label,
        rater,
        session_time,
        utility,
        probability,
    )
