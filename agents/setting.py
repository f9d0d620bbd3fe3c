"""What a run is made of: what its config names, loaded, and the files that all this comes from."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import AGENTS, REWARDS, load_agent
from agents.base import LearnsFrom, learns_from
from agents.refusals import check_flags
from textenv import models, plugins, rewards, tasks
from textenv.errors import UsageError, unknown_name
from textenv.files import sha256
from textenv.language_model import LanguageModel
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

Such a reward is right in part only, and the further from the reference, the less. On Concierge seven seeds reached
shares of 0.40 to 0.60 so, 0.53 on average; with 1.33 times (`textenv train --beta 0.1`) 0.15 to 0.48, 0.40 on average,
and with 3 times 0.53 to 0.60, 0.56 on average. On Reviews, Translate and Exact the runs with 3 times reached less, by
0.04 to 0.11 on average.
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
    check_flags(config)
    if not (config.reward in known_rewards or ":" in config.reward or Path(config.reward).is_dir()):
        unknown = unknown_name("reward", config.reward, known_rewards)
        raise UsageError(f"{unknown} A reward model's folder or module:callable works too.")
    return config


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
