"""Self-play: a policy that follows the reward model so far plays against the reference, and raters judge."""

from __future__ import annotations

import torch

from reward_models.reward_model import RewardModel
from textenv.language_model import LanguageModel
from textenv.progress import Progress
from textenv.responses import Prompts, Responses

BEST_OF = 8
PROMPTS_AT_ONCE = 32
"""Prompts that are answered at a time; bounds the memory."""
PLAYERS = (f"best-of-{BEST_OF}", "reference")
"""Who wrote the two responses to a prompt, in this order."""


def played(
    reference: LanguageModel,
    model: RewardModel,
    prompts: Prompts,
    max_tokens: int,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Responses:
    """Two responses to each prompt: the best by the reward model of `BEST_OF` of the reference's, and another one.

    The best of n is the policy that a reward model makes of the reference without learning. Where the model errs, its
    best response is not the better one, which raters can tell: as where comparisons are gathered anew with the latest
    policy (Ziegler et al. 2019, "Fine-tuning language models from human preferences"; Stiennon et al. 2020).

    Args:
        reference: answers.
        model: chooses.
        prompts: n of them.
        max_tokens: of a response.
        generator: draws the responses.
        progress: told the prompts done and their number.

    Returns:
        k = 2 responses to each prompt, written by `PLAYERS`.
    """
    texts: list[list[int]] = []
    for rows in torch.arange(len(prompts)).split(PROMPTS_AT_ONCE):
        sampled = reference.sample(
            prompts[rows], group_size=BEST_OF, max_tokens=max_tokens, generator=generator
        ).responses
        best = model(sampled).view(-1, BEST_OF).argmax(dim=1)
        each = sampled.to_lists()
        for prompt, place in enumerate(best.tolist()):
            group = each[prompt * BEST_OF : (prompt + 1) * BEST_OF]
            texts += [group[place], group[place - 1]]  # Any other one: they are drawn independently.
        if progress is not None:
            progress(len(texts) // 2, len(prompts), {})
    return Responses.from_lists(prompts, texts, reference.pad_id)
