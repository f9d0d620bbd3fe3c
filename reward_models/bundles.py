"""Comparisons of one prompt are learned together, so that its prefill and its responses are computed once.

Ouyang et al. 2022 ("InstructGPT", section 3.5) learn all comparisons of a prompt as one batch element:
it costs less, and a response is not learned from again and again in different steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from textenv.preferences import Preferences
from textenv.responses import Responses

MOST_COMPARISONS = 8
"""Of one bundle. Where prompts are few, a batch must not be filled by one of them."""


class Batch(NamedTuple):
    """m comparisons among the responses to U prompts."""

    responses: Responses
    """k responses to each prompt; prompts with fewer repeat their last one, which no comparison names."""
    first: Int[Tensor, " m"]
    """The row of `responses` that was shown first."""
    second: Int[Tensor, " m"]
    """The row that was shown second."""
    label: Float[Tensor, " m"]
    """As in `Preferences`."""
    row: Int[Tensor, " m"]
    """Which comparison each one is."""


def bundle(preferences: Preferences) -> list[list[int]]:
    """The indices of comparisons with equal prompts, at most `MOST_COMPARISONS` together."""
    of_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(preferences.prompts.to_lists()):
        of_prompt.setdefault(tuple(prompt), []).append(index)
    return [
        indices[start : start + MOST_COMPARISONS]
        for indices in of_prompt.values()
        for start in range(0, len(indices), MOST_COMPARISONS)
    ]


def collate(preferences: Preferences, bundles: Sequence[Sequence[int]]) -> Batch:
    """The batch of some bundles, each with a prompt in which every different response stands once."""
    flat = torch.tensor([index for members in bundles for index in members])
    chosen = preferences[flat]
    prompts = chosen.prompts[torch.tensor([len(members) for members in bundles]).cumsum(dim=0) - 1]
    bundle_of = [number for number, members in enumerate(bundles) for _ in members]
    # The place of each different response among those to its prompt, in order of appearance.
    places: list[dict[tuple[int, ...], int]] = [{} for _ in bundles]
    shown = [
        [
            places[number].setdefault(tuple(ids), len(places[number]))
            for number, ids in zip(bundle_of, rows, strict=True)
        ]
        for rows in (chosen.first.to_lists(), chosen.second.to_lists())
    ]
    k = max(map(len, places))
    texts = [list(place)[min(column, len(place) - 1)] for place in places for column in range(k)]
    first, second = torch.tensor(shown) + k * torch.tensor(bundle_of)
    # The padding is kept out of everything by the mask, so that any id will do.
    responses = Responses.from_lists(prompts, texts, pad_id=0)
    return Batch(responses, first, second, chosen.label, flat)
