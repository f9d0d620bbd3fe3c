"""Reward functions: typed callables that score whole responses in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from textenv.errors import TextenvError, UsageError
from textenv.responses import Responses
from textenv.tasks.base import RewardFunction, Task, text_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GoldReward:
    """The task's true utility, in units of its reference's within-prompt standard deviation."""

    name = "gold"

    def __init__(self, task: Task) -> None:
        if not task.attribute_names:
            raise UsageError(
                f"the task {task.name!r} has no known truth, so there is no gold reward; give another reward, "
                "a reward model or a function of prompts and responses"
            )
        self.task = task

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """The utility of each response."""
        gold = self.task.gold(responses)
        if gold is None:
            raise TextenvError(f"the task {self.task.name!r} names gold attributes, but gave no gold score")
        return gold.utility


class PythonReward:
    """A Python function of prompt texts and response texts, which come without special tokens."""

    def __init__(
        self, function: Callable[[list[str], list[str]], Sequence[float]], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        self.function = function
        self.tokenizer = tokenizer

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """The function's value for each response, refused unless there is one number for each."""
        prompts, answers = text_pairs(responses, self.tokenizer)
        values = self.function(list(prompts), list(answers))
        try:
            scores = torch.as_tensor(values, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TextenvError(
                f"the reward function {self.name!r} must return a list of numbers, one for each response; "
                f"it returned {type(values).__name__}: {error}"
            ) from error
        return check_scores(scores, responses, self.name)


class WeightedSum:
    """Σ_i w_i·r_i of reward functions."""

    def __init__(self, parts: Sequence[tuple[float, RewardFunction]]) -> None:
        if not parts:
            raise UsageError("a weighted sum of rewards needs at least one (weight, reward function) pair")
        self.parts = tuple(parts)
        self.name = " + ".join(f"{weight:g}*{function.name}" for weight, function in self.parts)

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """The weighted sum for each response."""
        scores = [
            weight * check_scores(function(responses), responses, function.name) for weight, function in self.parts
        ]
        return torch.stack(scores).sum(dim=0)


def check_scores(scores: object, responses: Responses, name: str) -> Float[Tensor, " B"]:
    """The scores unchanged, if there is one finite number for each response.

    Raises:
        TextenvError: they have another shape, or one of them is not finite; it names the row.
    """
    if not isinstance(scores, Tensor) or scores.shape != (len(responses),):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TextenvError(
            f"the reward function {name!r} must return a tensor of shape ({len(responses)},), one score for each "
            f"response; it returned {found}"
        )
    bad = (~scores.isfinite()).nonzero()
    if len(bad):
        row = int(bad[0, 0])
        raise TextenvError(
            f"the reward function {name!r} returned {scores[row].item()} for response {row} "
            f"{responses.to_lists()[row]}; every score must be finite"
        )
    return scores


def score_responses(
    reward_function: RewardFunction, responses: Responses, describe: Callable[[int], str]
) -> Float[Tensor, " B"]:
    """Calls a reward function without gradient and checks what it returns.

    Args:
        reward_function: what scores the responses.
        responses: B of them.
        describe: names row i to the user, for example by its environment and its prompt.

    Raises:
        TextenvError: the function raised, or returned something else than B finite numbers.
    """
    try:
        return _scores(reward_function, responses)
    except Exception as error:
        where = describe(_failing_row(reward_function, responses))
        raise TextenvError(f"{where}: the reward function {reward_function.name!r} failed: {error}") from error


@torch.no_grad()
def _scores(reward_function: RewardFunction, responses: Responses) -> Float[Tensor, " B"]:
    return check_scores(reward_function(responses), responses, reward_function.name).detach().float()


def _failing_row(reward_function: RewardFunction, responses: Responses) -> int:
    """The first response that fails when it is scored alone; the first of all where none does."""
    single = responses.ungrouped()
    for row in range(len(single)):
        try:
            _scores(reward_function, Responses(single.prompts[row : row + 1], single.ids[[row]], single.mask[[row]]))
        except Exception:
            return row
    return 0
