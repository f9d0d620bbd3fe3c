"""All that raters are asked in a run, and the reward model that comes of it.

Each step leaves its results in the run's folder, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from reward_models.asking import Asking
from reward_models.balancing import DEMONSTRATION, against_demonstrations, balanced, together
from reward_models.comparisons import LabelBudget
from reward_models.crowd_comparisons import Collected, collect, crowd_for, with_training, within_its_own
from reward_models.crowd_feedback import CollectedFeedback, Form, collect_feedback, feedback_crowd
from reward_models.feedback import Feedback
from reward_models.feedback_fitting import fit_feedback
from reward_models.fitting import FitResult, RewardModelConfig, fit
from reward_models.raters import Compares, load_rater
from reward_models.raters.population import Population
from reward_models.reward_model import RewardModel
from reward_models.self_play import PLAYERS, played
from textenv.demonstrations import best_demonstrations
from textenv.errors import TextenvError, UsageError
from textenv.language_model import LanguageModel
from textenv.preferences import Preferences
from textenv.progress import Progress
from textenv.responses import Responses
from textenv.tasks.base import Task

NORMALISING_PROMPTS = 512
"""Prompts whose samples set the reward model's mean and deviation."""


@dataclass(frozen=True)
class Plan:
    """Who is asked how much in which way, and how a reward model learns from it."""

    rater: str
    """As in `reward_models.raters.load_rater`."""
    form: Form
    """What an answer is."""
    asking: Asking
    """How questions are put to people."""
    preferences: Path | None
    """Comparisons that are there already; nobody is asked then."""
    labels: int
    """Budget in answers."""
    labels_per_prompt: int
    """Comparisons asked for each prompt."""
    responses_per_prompt: int
    """Responses that are sampled to each prompt."""
    demonstration_share: float
    """Share of all comparisons that are of a demonstration and a sample, and need no rater."""
    self_play_share: float
    """Share of the labels that are spent on self-play."""
    reward_model: RewardModelConfig
    """How the reward model is fitted."""

    @property
    def answers_per_prompt(self) -> int:
        """How many answers of each rater a prompt is good for."""
        return {"pairwise": self.labels_per_prompt, "ranking": 1}.get(self.form, self.responses_per_prompt)

    @property
    def prompts(self) -> int:
        """How many prompts have responses sampled for the raters, or to set the reward model's scale."""
        if self.preferences is not None:
            return NORMALISING_PROMPTS
        return math.ceil(self.labels // self.asking.raters_per_item / self.answers_per_prompt)

    @property
    def self_play_labels(self) -> int:
        """How many of the labels are spent on self-play."""
        return round(self.labels * self.self_play_share)


@dataclass(frozen=True)
class Bought:
    """What the raters gave, and what was found out about them."""

    labels: int = 0
    """Answers, those of their training among them."""
    training_labels: int = 0
    excluded: Sequence[str] = ()
    """Whose answers were left out."""
    reliability: Mapping[str, float] | None = None
    """How far each one's answers can be relied on, where they are learned from by themselves."""


class Folder(Protocol):
    """Where a run keeps what it has done."""

    path: Path

    def finished(self, stage: str) -> bool:
        """Whether a stage is done."""
        ...

    def read_json(self, name: str) -> dict[str, Any] | None:
        """What a file holds; None where there is none."""
        ...

    def write_json(self, name: str, value: object) -> None:
        """Writes a file, whole or not at all."""
        ...


class Generators(Protocol):
    """Gives each use a generator of its own."""

    def numpy(self, name: str) -> np.random.Generator:
        """At its beginning."""
        ...

    def torch(self, name: str) -> torch.Generator:
        """At its beginning."""
        ...


Stage = Callable[[str], AbstractContextManager[Progress]]
"""Does a stage of this name, and marks it as finished at its end."""


def check_raters(plan: Plan, rater: Compares | Population, task: Task, seeds: Generators) -> None:
    """Whether there are such people, who can be asked what is asked for; who they are is drawn when they are.

    Raises:
        UsageError: there are not.
    """
    rng = seeds.numpy("rater")
    crowd = (
        crowd_for(rater, task, plan.asking, rng)
        if plan.form == "pairwise"
        else feedback_crowd(plan.form, rater, task, plan.asking, rng)
    )
    if crowd is not None:
        with_training(crowd, plan.asking, *within_its_own(rater, LabelBudget(plan.labels - plan.self_play_labels)))
    if plan.self_play_share and isinstance(rater, Population) and (rater.labels, rater.money) != (None, None):
        raise UsageError(
            f"self-play asks raters twice, but the population {rater.name!r} has a budget of its own for once; take it "
            "out of its file and give --labels"
        )


def check_preferences(file: Path, reference: LanguageModel) -> None:
    """Whether a file has comparisons that the reference can read.

    Raises:
        TextenvError: it is missing or damaged, or names tokens that the reference does not have.
    """
    preferences = Preferences.load(file, reference.pad_id)
    highest = max(int(ids.max()) for ids in (preferences.prompts.ids, preferences.first.ids, preferences.second.ids))
    if highest >= len(reference.tokenizer):
        raise TextenvError(
            f"{file} has the token {highest}, but the model {reference.name!r} has {len(reference.tokenizer)} tokens; "
            "import the comparisons with this model, as by textenv raters import --model"
        )


class Campaign:
    """One run's questions to raters, in its folder."""

    def __init__(
        self, plan: Plan, task: Task, reference: LanguageModel, folder: Folder, seeds: Generators, stage: Stage
    ) -> None:
        self.plan = plan
        self.task = task
        self.reference = reference
        self.folder = folder
        self.seeds = seeds
        self.stage = stage

    def learn(self, samples: Responses, path: Path) -> None:
        """Learns a reward model from what the raters say of the reference's responses, and writes it."""
        if self.plan.form != "pairwise":
            self.fit_reward_model(samples, self.give_feedback(samples), path)
        elif self.plan.self_play_share == 0:
            self.fit_reward_model(samples, self.compare(samples), path)
        else:
            both = together([self.compare(samples), self.self_play(samples)])
            self.fit_reward_model(samples, both, path)

    def compare(self, samples: Responses) -> Preferences:
        """The raters' answers, for as many labels as the budget has, and demonstrations beside them if asked for."""
        file = self.folder.path / "preferences.parquet"
        plan, reference = self.plan, self.reference
        if not self.folder.finished("compare"):
            with self.stage("compare") as progress:
                budget = LabelBudget(plan.labels - plan.self_play_labels)
                if plan.preferences is not None:
                    collected = Collected(Preferences.load(plan.preferences, reference.pad_id))
                else:
                    collected = collect(
                        load_rater(plan.rater),
                        self.task,
                        samples,
                        budget,
                        self.seeds.numpy("rater"),
                        plan.asking,
                    )
                preferences = self._keep(collected, "compare", "labels.parquet", progress)
                if plan.demonstration_share:
                    preferences = self._with_demonstrations(preferences, samples)
                preferences.save(file, reference.tokenizer)
        return Preferences.load(file, reference.pad_id)

    def self_play(self, samples: Responses) -> Preferences:
        """The raters' answers about the best by a first reward model against the reference."""
        plan, reference = self.plan, self.reference
        file = self.folder.path / "self_play.parquet"
        if not self.folder.finished("self_play"):
            with self.stage("self_play") as progress:
                first = self._fitted(samples, self.compare(samples), None)[0]
                count = min(len(samples.prompts), math.ceil(plan.self_play_labels / plan.asking.raters_per_item))
                responses = played(
                    reference,
                    first,
                    samples.prompts[:count],
                    self.task.response_length,
                    self.seeds.torch("self-play responses"),
                    progress,
                )
                collected = collect(
                    load_rater(plan.rater),
                    self.task,
                    responses,
                    LabelBudget(plan.self_play_labels),
                    # The same people: who they are is drawn first.
                    self.seeds.numpy("rater"),
                    plan.asking,
                    sources=PLAYERS,
                    trained_before=True,
                )
                preferences = self._keep(collected, "self_play", "labels_self_play.parquet", progress)
                preferences.save(file, reference.tokenizer)
        return Preferences.load(file, reference.pad_id)

    def give_feedback(self, samples: Responses) -> CollectedFeedback:
        """What the raters say of the reference's responses in another form than comparisons."""
        plan = self.plan
        assert plan.form != "pairwise", "compare() is for pairs"
        file = self.folder.path / "feedback.parquet"
        width = samples.group_size if plan.form == "ranking" else 1
        if not self.folder.finished("compare"):
            with self.stage("compare") as progress:
                collected = collect_feedback(
                    plan.form,
                    load_rater(plan.rater),
                    self.task,
                    samples,
                    LabelBudget(plan.labels),
                    self.seeds.numpy("rater"),
                    plan.asking,
                )
                answers = len(collected.feedback) // width
                progress(answers, plan.labels, {})
                collected.feedback.save(file)
                self._note("compare", Bought(answers + collected.training_labels, collected.training_labels))
        return CollectedFeedback(Feedback.load(file), np.arange(len(samples)).reshape(-1, width))

    def _keep(self, collected: Collected, stage: str, name: str, progress: Progress) -> Preferences:
        """Writes everybody's answers, and notes what they cost and whom they tell to be reliable."""
        preferences, labels = collected.preferences, collected.labels
        if labels is not None:
            labels.save(self.folder.path / name)
        count = len(preferences if labels is None else labels) + collected.training_labels
        progress(count, self.plan.labels, {})
        bought = Bought(count, collected.training_labels, list(collected.excluded), collected.reliability)
        self._note(stage, bought)
        return preferences

    def _with_demonstrations(self, preferences: Preferences, samples: Responses) -> Preferences:
        """The comparisons and, in their share of all, demonstrations against the reference's samples."""
        plan, reference = self.plan, self.reference
        share = plan.demonstration_share
        total = int(len(preferences) / (1 - share))
        count = min(len(samples.prompts), math.ceil(2 * share * total / samples.group_size))
        some = samples.groups(torch.arange(count))
        shown = best_demonstrations(self.task, reference, some.prompts, self.seeds.torch("demonstration responses"))
        rng = self.seeds.numpy("demonstrations")
        against = against_demonstrations(shown.responses, some, rng)
        return balanced([preferences, against], [1 - share, share], total, rng)

    @property
    def bought(self) -> Bought:
        """What all stages together bought."""
        each = [Bought(**noted) for noted in (self.folder.read_json("raters.json") or {}).values()]
        reliability: dict[str, float] = {}
        for bought in reversed(each):  # What the first stage tells counts: it has more answers.
            reliability |= bought.reliability or {}
        return Bought(
            sum(bought.labels for bought in each),
            sum(bought.training_labels for bought in each),
            sorted({name for bought in each for name in bought.excluded}),
            reliability or None,
        )

    def _note(self, stage: str, bought: Bought) -> None:
        noted = self.folder.read_json("raters.json") or {}
        self.folder.write_json("raters.json", noted | {stage: dataclasses.asdict(bought)})

    def fit_reward_model(self, samples: Responses, data: Preferences | CollectedFeedback, path: Path) -> None:
        """Fits the reward model and writes it with its calibration."""
        with self.stage("reward_model") as progress:
            model, result = self._fitted(samples, data, progress)
            model.save(path)
            self.folder.write_json("reward_model_calibration.json", result.to_dict() | {"labels": self.labels_bought})

    def _fitted(
        self, samples: Responses, data: Preferences | CollectedFeedback, progress: Progress | None
    ) -> tuple[RewardModel, FitResult]:
        """A reward model that has learned from the data, and what it was measured to know."""
        config = self.plan.reward_model
        # The scores' scale is set before the fit, so that it starts from differences of about 1, and after it.
        normaliser = samples.groups(torch.arange(min(len(samples.prompts), NORMALISING_PROMPTS)))
        model = RewardModel.from_language_model(self.reference, self.seeds.torch("reward head"))
        model.normalise(normaliser)
        generator = self.seeds.torch("reward model")
        if isinstance(data, Preferences):
            reliability = self.bought.reliability
            if reliability is not None:
                reliability = {**reliability, DEMONSTRATION: 1.0}
            result = fit(model, data, config, generator, progress, reliability)
        else:
            result = fit_feedback(model, data.feedback, samples, data.items, config, generator, progress)
        model.normalise(normaliser)
        return model, result

    @property
    def labels_bought(self) -> int:
        """How many labels the raters gave, those of their training among them."""
        return self.bought.labels
