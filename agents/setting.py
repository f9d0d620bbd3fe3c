"""What a run is made of: what its config names, checked and loaded, and the files that all this comes from."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import AGENTS, REWARDS, load_agent
from agents.base import LearnsFrom, learns_from
from agents.language_agent import AgentConfig
from textenv import models, plugins, rewards, tasks
from textenv.errors import UsageError, unknown_name
from textenv.files import sha256
from textenv.language_model import LanguageModel
from textenv.preferences import Preferences
from textenv.prompt_files import read_prompts
from textenv.tasks.base import RewardFunction, Task
from textenv.tasks.text import TextTask
from textenv.vader import VaderReward

if TYPE_CHECKING:
    from agents.rlhf import RLHFConfig

OUR_TASKS = (*tasks.TASKS, "text")
"""Every name of a task that means one of ours."""

INPUT_FILES = {".safetensors", ".json", ".jinja", ".model", ".txt", ".arrow"}
"""Endings of what is read of a checkpoint folder, or of a dataset's with prompts."""


CAUTION = 2.0
"""How many times the task's beta weighs the KL while an agent follows a learned reward.

Such a reward is right in part only, and the further from the reference, the less. On Concierge shares of 0.51, 0.50,
0.58 and 0.41 were reached so with seeds 0 to 3; with 1.6 times 0.52, 0.56, 0.46 and 0.30, and at the task's own beta
(`textenv train --beta 0.075`) 0.39, 0.43, 0.25 and -1.07: that run had left the reference by 14 nats.
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run is made of, checked and loaded."""

    config: RLHFConfig
    task: Task
    reference: LanguageModel
    reward: RewardFunction | None
    """None: it is still to be learned. An agent that learns from preferences is judged by it, no more."""
    rater_code: Sequence[Path] = ()
    """The source of a rater of one's own; empty where none is asked."""

    @property
    def learns_from(self) -> LearnsFrom:
        """What the agent learns from."""
        return learns_from(load_agent(self.config.agent))

    @property
    def beta(self) -> float:
        """The weight of the KL at the start of training."""
        if self.config.beta is not None:
            return self.config.beta
        learned = self.config.reward == "learned" and self.learns_from == "rewards"
        return self.task.beta * (CAUTION if learned else 1.0)

    def inputs(self) -> dict[str, str]:
        """The SHA-256 of every file that the run depends on, by what messages call it."""
        config = self.config
        code = {
            "--task": plugins.source_files("task", config.task_name, OUR_TASKS),
            "--agent": plugins.source_files("agent", config.agent, AGENTS),
            "--reward": _reward_places(config.reward),
            "--rater": self.rater_code,
        }
        data = {
            "--prompts": config.prompts,
            "--preferences": config.preferences,
            "--model": models.folder_of(config.model or self.task.reference),
        }
        data |= {f"--{field.replace('_', '-')}": Path(file) for field, file in _files_of(config.algorithm).items()}
        return _fingerprints(code | {flag: [place] for flag, place in data.items() if place is not None})


def settings_class(agent: str, taken: Iterable[str]) -> type[Any]:
    """The class of an agent's settings, which are flags among others.

    Args:
        agent: as in `agents.load_agent`.
        taken: the names of the other flags.

    Raises:
        UsageError: no such agent is known, or a setting of it has a name that is taken.
    """
    config_class: type[Any] = load_agent(agent).config_class
    both = sorted({field.name for field in dataclasses.fields(config_class)} & set(taken))
    if both:
        raise UsageError(
            f"{config_class.__name__} of the agent {agent!r} has {', '.join(both)}, which is the name of another flag "
            "of the command; give the field another name"
        )
    return config_class


def completed(config: RLHFConfig) -> RLHFConfig:
    """The config with its defaults filled in and whole paths, so that the run can go on from another folder.

    Raises:
        UsageError: an agent or a reward is not known, or a number is out of its range.
    """
    config_class = settings_class(config.agent, (field.name for field in dataclasses.fields(config)))
    known_rewards = plugins.known_names("reward", REWARDS)
    config = dataclasses.replace(
        config,
        task=config.task_name,
        algorithm=_with_whole_paths(config.algorithm or config_class()),
        prompts=None if config.prompts is None else config.prompts.absolute(),
        preferences=None if config.preferences is None else config.preferences.absolute(),
        model=config.model and _absolute(config.model, models.list_models()),
        reward=_absolute(config.reward, known_rewards),
    )
    if not isinstance(config.algorithm, config_class):
        raise UsageError(f"{config.agent} takes {config_class.__name__}, got {type(config.algorithm).__name__}")
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
    if not (config.reward in known_rewards or ":" in config.reward or Path(config.reward).is_dir()):
        unknown = unknown_name("reward", config.reward, known_rewards)
        raise UsageError(f"{unknown} A reward model's folder or module:callable works too.")
    return config


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


def load_task(config: RLHFConfig) -> tuple[Task, LanguageModel]:
    """The task that a config names and the model that is its reference.

    Raises:
        UsageError: a name is not known, or task, model and prompts do not go together.
    """
    if config.task_name == "text":
        return _load_own_prompts(config)
    of_own = {
        "--prompts": config.prompts,
        "--prompt-length": config.prompt_length,
        "--truncate-prompts": config.truncate_prompts or None,
        "--response-length": config.response_length,
        "--chat": config.chat or None,
    }
    for flag in (flag for flag, value in of_own.items() if value is not None):
        raise UsageError(f"{flag} is for prompts of your own, but --task is {config.task}; leave one of them out")
    if config.task_name not in tasks.TASKS:
        plugins.target_of("task", config.task_name, OUR_TASKS)  # For its message, which names text as well.
    task = tasks.load(config.task_name)
    reference = models.load(config.model or task.reference)
    if reference.tokenizer.get_vocab() != task.tokenizer.get_vocab():
        raise UsageError(
            f"the model {reference.name!r} has another vocabulary than the task {task.name!r}, whose prompts it could "
            f"not read; leave --model out, give a model made from {task.reference!r}, or use --prompts FILE"
        )
    needed = task.prompt_length + task.response_length
    if reference.max_length < needed:
        raise UsageError(
            f"the model {reference.name!r} takes {reference.max_length} tokens, but prompts and responses of "
            f"{task.name!r} have up to {needed}; give a model that takes more"
        )
    return task, reference


def _load_own_prompts(config: RLHFConfig) -> tuple[Task, LanguageModel]:
    if config.prompts is None:
        raise UsageError("the task text is about prompts of your own; give their file with --prompts FILE")
    if config.model is None:
        raise UsageError("prompts of your own need a model that reads them: --model smollm2, a folder or a hub name")
    texts = read_prompts(config.prompts)  # First, since to load a model can take a minute.
    reference = models.load(config.model)
    length = {} if config.response_length is None else {"response_length": config.response_length}
    task = TextTask.from_texts(
        texts,
        reference,
        prompt_length=config.prompt_length,
        chat=config.chat,
        truncate_prompts=config.truncate_prompts,
        **length,
    )
    return task, reference


def load_reward(name: str, task: Task, reference: LanguageModel) -> RewardFunction:
    """A reward that is neither learned nor a reward model's folder.

    Args:
        name: gold, vader, one that an installed distribution brings, or "module:callable"; a class is made without
            arguments, and its instance is called.
        task: whose truth gold is.
        reference: whose tokenizer turns responses into text.

    Raises:
        UsageError: the task has no truth, or what was named cannot be imported or called as a reward.
    """
    if name == "gold":
        if not task.attribute_names:
            raise UsageError(f"the task {task.name!r} has no gold score; give another --reward")
        return rewards.GoldReward(task)
    if name == "vader":
        return VaderReward(reference.tokenizer)
    found = plugins.load("reward", name, REWARDS)
    function = plugins.made("reward", name, found)
    if not callable(function):
        raise UsageError(
            f"{name!r} is a {type(found).__name__}, expected a function of prompts and responses, or a class whose "
            "instances are called so"
        )
    try:
        inspect.signature(function).bind(["a prompt"], ["a response"])
    except TypeError as error:
        raise UsageError(
            f"{name!r} cannot be called with a list of prompts and a list of responses: {error}"
        ) from error
    except ValueError:
        pass  # Some functions written in C do not tell what they take.
    return rewards.PythonReward(function, reference.tokenizer)


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


def _files_of(algorithm: Any) -> dict[str, str]:
    """The files that an agent's settings name, by field: those fields that `files` of its config class lists."""
    named = {field: getattr(algorithm, field) for field in getattr(algorithm, "files", ())}
    return {field: file for field, file in named.items() if file is not None}


def _with_whole_paths(algorithm: Any) -> Any:
    whole = {field: os.path.abspath(os.path.expanduser(file)) for field, file in _files_of(algorithm).items()}
    return dataclasses.replace(algorithm, **whole) if whole else algorithm


def _absolute(name: str, known: Container[str]) -> str:
    """A folder's name made absolute; other names stay as they are."""
    folder = os.path.abspath(os.path.expanduser(name))
    return folder if name not in known and os.path.isdir(folder) else name


def _reward_places(name: str) -> Sequence[Path]:
    """The folder of a reward model, or the source of a reward of one's own."""
    return [Path(name)] if os.path.isabs(name) else plugins.source_files("reward", name, REWARDS)


def _fingerprints(places: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """The SHA-256 of each file of a run's inputs, by what messages call it.

    Args:
        places: the files and the folders that stand behind a flag.
    """
    return {
        f"{plugins.called(file) if file == place else file.relative_to(place)} ({flag})": sha256(file)
        for flag, several in places.items()
        for place in several
        for file in (sorted([*place.glob("*"), *place.glob("*/*.arrow")]) if place.is_dir() else [place])
        if file == place or file.suffix in INPUT_FILES
    }
