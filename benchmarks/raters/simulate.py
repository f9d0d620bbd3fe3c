"""`textenv raters simulate`: raters compare the reference's answers to a task's prompts, and their labels are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from agents.seeds import Seeds
from reward_models.asking import Asking
from reward_models.comparisons import LabelBudget, random_pairs
from reward_models.crowd_comparisons import crowd_for, questions_for, with_training, within_its_own
from reward_models.crowd_feedback import Form, feedback_crowd
from reward_models.feedback import Feedback
from reward_models.forms import gather
from reward_models.labels import Labels
from reward_models.raters import Rater, load_rater
from reward_models.raters.crowd import crowd_of
from reward_models.raters.material import material_of, rated_attributes
from reward_models.raters.population import Recruiting
from reward_models.schedules import Order
from reward_models.surveys import Survey, survey
from textenv import models, tasks
from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.tasks.base import Task, prompts_of

RESPONSES_PER_PROMPT = 8
"""They make up to 28 pairs; a half of them is counted on, since some responses are the same."""
PROMPTS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class SimulateConfig:
    """Who is asked how much about what."""

    out: Path
    """Labels file to write, Parquet with the columns of reward_models.labels.SCHEMA."""
    rater: str = "bradley-terry"
    """Who answers: a name of `textenv raters list`, a population's file, or module:Class."""
    task: str = "concierge"
    """Task whose responses are compared; one with a known truth."""
    against: str | None = None
    """Model with the task's words, whose responses are a half of those that are compared; None is none."""
    labels: int = 4096
    """Answers to ask for; a population's own budget holds too."""
    raters_per_item: int = 1
    """Different raters who answer each item."""
    gold_rate: float = 0.0
    """Share of the items that are gold questions, whose answer is known; of comparisons only."""
    form: Form = "pairwise"
    """What an answer is: which of two is better, the order of eight, thumbs up or down, or a score from 1 to 7. Other
    forms than pairs are written with the columns of reward_models.feedback.SCHEMA."""
    recruiting: Recruiting | None = None
    """The rule by which people come (uniform, stratified, convenience, self-selected); None is their population's."""
    order: Order = "random"
    """Which response is shown first: drawn, either one as often (balanced), or always the same (fixed)."""
    repeat_rate: float = 0.0
    """Share of the questions that the same rater gets again in the other order, so that an audit can tell who is
    consistent; they count as labels."""
    training_questions: int = 0
    """Gold questions by which each one is trained before the work; they count as labels, but are not written."""
    seed: int = 0
    """Fixes prompts, responses, people and answers."""


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: what was asked cannot be.
        DiskError: the file cannot be written.
    """
    config = tyro.cli(SimulateConfig, prog="textenv raters simulate", description=__doc__, args=list(arguments))
    result = simulate(config)
    console = console or Console()
    if isinstance(result, Feedback):
        result.save(config.out)
        console.print(feedback_summary(result))
    else:
        result.labels.save(config.out)
        console.print(summary(result))
    console.print(f"written {config.out}", highlight=False, soft_wrap=True)
    return 0


def simulate(config: SimulateConfig) -> Survey | Feedback:
    """The labels, or the feedback of another form, that the config asks for.

    Raises:
        UsageError: what was asked cannot be.
    """
    for field, least in (("labels", 1), ("raters_per_item", 1), ("training_questions", 0), ("seed", 0)):
        if getattr(config, field) < least:
            raise UsageError(f"--{field.replace('_', '-')} is {getattr(config, field)}, expected {least} or more")
    for field in ("gold_rate", "repeat_rate"):
        if not 0 <= getattr(config, field) <= 1:
            raise UsageError(f"--{field.replace('_', '-')} is {getattr(config, field)}, expected a number in [0, 1]")
    each = config.raters_per_item
    asking = Asking(
        each, gold_rate=config.gold_rate, recruiting=config.recruiting, order=config.order,
        repeat_rate=config.repeat_rate, training_questions=config.training_questions,
    )  # fmt: skip
    rater, task, seeds = load_rater(config.rater), tasks.load(config.task), Seeds(config.seed)
    rng = seeds.numpy("rater")
    budget, money = within_its_own(rater, LabelBudget(config.labels))
    if config.form != "pairwise":
        crowd = feedback_crowd(config.form, rater, task, asking, rng)
    else:
        found = crowd_for(rater, task, asking, rng)
        if found is None and not (isinstance(rater, Rater) and rater.only_parts):
            raise UsageError(f"the rater {config.rater!r} has methods of its own; `textenv train --rater` asks it")
        crowd = found or crowd_of(rater, rated_attributes(task))  # type: ignore[arg-type]  # A rater, as was seen.
    crowd, _, money = with_training(crowd, asking, budget, money)
    items = questions_for(budget, asking)
    per_prompt = {"pairwise": RESPONSES_PER_PROMPT * (RESPONSES_PER_PROMPT - 1) / 4, "ranking": 1}
    count = math.ceil(items / per_prompt.get(config.form, RESPONSES_PER_PROMPT))
    names = list(dict.fromkeys([task.reference, config.against or task.reference]))
    responses = sample(task, names, count, seeds)
    sources = np.tile(np.repeat(np.arange(len(names)), RESPONSES_PER_PROMPT // len(names)), count)
    material = dataclasses.replace(
        material_of(task, responses, prefixes=crowd.needs_prefixes), sources=sources, source_names=tuple(names)
    )
    if config.form == "pairwise":
        pairs = np.array(random_pairs(responses, rng)[:items])
        return survey(
            crowd, material, pairs, rng,
            raters_per_item=each, gold_rate=config.gold_rate, money=money, order=config.order,
            repeat_rate=config.repeat_rate,
        )  # fmt: skip
    rows = np.arange(len(responses)).reshape(-1, RESPONSES_PER_PROMPT if config.form == "ranking" else 1)
    return gather(config.form, crowd, material, rows[:items], rng, raters_per_item=each, money=money)


def sample(task: Task, names: Sequence[str], count: int, seeds: Seeds) -> Responses:
    """Responses to so many training prompts, as many to each prompt from one model as from another.

    Raises:
        UsageError: a model is not known, or has another vocabulary than the task.
    """
    prompts = prompts_of(task, task.sample_prompts("train", count, seeds.numpy("comparison prompts")))
    generator = seeds.torch("comparison responses")
    texts: list[list[list[int]]] = [[] for _ in range(count)]
    for model in map(models.load, names):
        if model.tokenizer.get_vocab() != task.tokenizer.get_vocab():
            raise UsageError(f"the model {model.name!r} has another vocabulary than the task {task.name!r}")
        for rows in torch.arange(count).split(PROMPTS_AT_ONCE):
            each = RESPONSES_PER_PROMPT // len(names)
            sampled = model.sample(
                prompts[rows], group_size=each, max_tokens=task.response_length, generator=generator
            ).responses.to_lists()
            for place, row in enumerate(rows.tolist()):
                texts[row] += sampled[place * each : (place + 1) * each]
    pad_id = int(task.tokenizer.pad_token_id)
    return Responses.from_lists(prompts, [text for group in texts for text in group], pad_id)


def summary(result: Survey) -> Table:
    """What the labels came to."""
    labels: Labels = result.labels
    difference = labels.utility_first - labels.utility_second
    decided = (labels.label != 0.5) & ~np.isnan(labels.label) & (difference != 0)
    right = (labels.label[decided] == 1) == (difference[decided] > 0)
    rows = {
        "labels": f"{len(labels):,}",
        "items": f"{len(np.unique(labels.item)):,}",
        "raters": f"{len(labels.codes('rater')[0]):,}",
        "gold questions": f"{labels.gold.sum():,}",
        "skipped": f"{np.isnan(labels.label).mean():.1%}",
        "ties": f"{(labels.label == 0.5).mean():.1%}",
        "in the true order": f"{right.mean():.1%}" if decided.any() else "–",
        "cost": f"{result.cost:g}",
    }
    return _table(rows)


def feedback_summary(feedback: Feedback) -> Table:
    """What other feedback than comparisons came to."""
    known = ~np.isnan(feedback.value)
    value, utility = feedback.value[known], feedback.utility[known]
    varied = len(value) > 1 and np.ptp(value) > 0 and np.ptp(utility) > 0
    rows = {
        "questions": f"{len(np.unique(feedback.question)):,}",
        "items": f"{len(np.unique(feedback.item)):,}",
        "raters": f"{len(set(feedback.rater)):,}",
        "skipped": f"{1 - known.mean():.1%}",
        "mean answer": f"{value.mean():.2f}" if len(value) else "–",
        "correlation with the true utility": f"{np.corrcoef(value, utility)[0, 1]:.2f}" if varied else "–",
    }
    return _table(rows)


def _table(rows: Mapping[str, str]) -> Table:
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
