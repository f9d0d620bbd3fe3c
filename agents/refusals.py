"""What of a run's config cannot be, or would be without effect: refused before anything is run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agents import load_agent
from agents.base import LearnsFrom, learns_from
from agents.language_agent import AgentConfig
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.preferences import Preferences
from textenv.tasks.base import Task

if TYPE_CHECKING:
    from agents.rlhf import RLHFConfig


def check_flags(config: RLHFConfig) -> None:
    """Refuses numbers out of their ranges, and flags that do not go together.

    Raises:
        UsageError: names the flag, its value and what is expected.
    """
    for field, least in (("labels", 2), ("raters_per_item", 1), ("labels_per_prompt", 1), ("responses_per_prompt", 2),
                         ("demonstrations", 1), ("tokens", 1), ("seed", 0), ("test_prompts", 2),
                         ("test_samples", 1)):  # fmt: skip
        if getattr(config, field) < least:
            raise UsageError(f"--{field.replace('_', '-')} is {getattr(config, field)}, expected {least} or more")
    if config.beta is not None and not 0 <= config.beta < math.inf:
        raise UsageError(f"--beta is {config.beta}, expected a number from 0 up")
    if config.max_kl is not None and not 0 < config.max_kl < math.inf:
        raise UsageError(f"--max-kl is {config.max_kl}, expected a number above 0, or None for the guard's own limit")
    if not 0 <= config.demonstration_share < 1:
        raise UsageError(f"--demonstration-share is {config.demonstration_share}, expected 0 or more and below 1")
    if not 0 <= config.self_play_share <= 0.5:
        raise UsageError(f"--self-play-share is {config.self_play_share}, expected a number from 0 to 0.5")
    if config.preferences is not None:
        if not config.learns_preferences:
            raise UsageError(
                f"--preferences has comparisons, but with --reward {config.reward} and --agent {config.agent} nothing "
                "learns from any; leave it out"
            )
        asked = {"--form": config.form != "pairwise", "--self-play-share": config.self_play_share > 0,
                 "--reliability": config.reliability != "none"}  # fmt: skip
        for flag in (flag for flag, given in asked.items() if given):
            raise UsageError(f"{flag} is about asking raters, but --preferences has the answers; leave one of them out")
    if config.form != "pairwise":
        of_pairs = {"--demonstration-share": config.demonstration_share, "--self-play-share": config.self_play_share}
        for flag in (flag for flag, share in of_pairs.items() if share > 0):
            raise UsageError(f"{flag} is of comparisons only, but --form is {config.form}; leave one of them out")
    _check_learning(config, learns_from(load_agent(config.agent)))


def _check_learning(config: RLHFConfig, source: LearnsFrom) -> None:
    if source == "rewards":
        return
    what = "the rater's comparisons" if source == "preferences" else "demonstrations"
    if config.reward != "learned":
        raise UsageError(
            f"--reward is {config.reward}, but the agent {config.agent!r} learns from {what} and from "
            "no reward; leave --reward out"
        )
    of_reward_models = {"--form": config.form != "pairwise", "--reliability": config.reliability != "none",
                        "--self-play-share": config.self_play_share > 0}  # fmt: skip
    for flag in (flag for flag, given in of_reward_models.items() if given):
        raise UsageError(
            f"{flag} is about what a reward model learns from, but the agent {config.agent!r} learns from {what} and "
            f"from no reward; leave {flag} out"
        )


def check_truth(config: RLHFConfig, task: Task) -> None:
    """Refuses labels that no rater can give, and demonstrations that nobody can choose.

    Raises:
        UsageError: the task has no truth to judge by, or its prompts have too few pairs of responses.
    """
    if not task.attribute_names:
        lacks = "no simulated rater can compare" if config.buys_labels else "nobody can choose the best of"
        raise UsageError(
            f"the task {task.name!r} has no known truth, so {lacks} its responses; give --reward vader, a reward "
            "model's folder or module:callable, and an agent that learns from rewards"
        )
    if not config.buys_labels:
        return
    if config.labels < 2 * config.raters_per_item:
        raise UsageError(
            f"--labels is {config.labels}, but with --raters-per-item {config.raters_per_item} two comparisons take "
            f"{2 * config.raters_per_item}; give more labels"
        )
    pairs = config.responses_per_prompt * (config.responses_per_prompt - 1) // 2
    if config.labels_per_prompt > pairs:
        raise UsageError(
            f"--labels-per-prompt is {config.labels_per_prompt}, but {config.responses_per_prompt} responses to a "
            f"prompt make {pairs} pairs; give more --responses-per-prompt"
        )


def check_batch_size(config: RLHFConfig, reference: LanguageModel) -> None:
    """Refuses a batch that was asked for and that no pass could fill.

    The default may be larger than what there is: a batch is then all of it.

    Raises:
        UsageError: names the size, and how many comparisons or demonstrations there will be at most.
    """
    source, size = learns_from(load_agent(config.agent)), getattr(config.algorithm, "batch_size", None)
    own = not isinstance(config.algorithm, AgentConfig)  # Agents of one's own may mean something else by it.
    if own or source == "rewards" or size is None or size == getattr(type(config.algorithm), "batch_size", None):
        return
    if source == "demonstrations":
        most, why = config.demonstrations, f"--demonstrations is {config.demonstrations}"
    elif config.preferences is not None:
        most = len(Preferences.load(config.preferences, reference.pad_id))
        why = f"{config.preferences} has {most} comparisons"
    else:
        answered = config.labels // config.raters_per_item
        most = math.floor(answered / (1 - config.demonstration_share))
        why = f"{config.labels} labels come to {most} comparisons"
    if size > most:
        raise UsageError(
            f"{type(config.algorithm).__name__}.batch_size is {size}, expected a whole number in [1, {most}], because "
            f"{why}"
        )
