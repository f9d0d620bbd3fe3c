"""What raters are asked in a run, by each remedy alone, and what the reward model learns from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from agents.rlhf import RLHFConfig
from agents.seeds import Seeds
from reward_models.balancing import DEMONSTRATION
from reward_models.campaign import Campaign, check_preferences, check_raters
from reward_models.feedback import Feedback
from reward_models.labels import Labels
from reward_models.raters import load_rater
from textenv import models, tasks
from textenv.errors import TextenvError, UsageError
from textenv.responses import Responses
from textenv.tasks.base import prompts_of

TASK = tasks.load("exact")
REFERENCE = models.load("exact")
SAMPLES: Responses = REFERENCE.sample(
    prompts_of(TASK, TASK.fixed_prompts("train", 60)), max_tokens=5, group_size=4,
    generator=torch.Generator().manual_seed(0),
).responses  # fmt: skip

PEOPLE = """
raters = 10
recruiting = "convenience"
[groups.careful]
share = 0.5
reach = 0.25
rationality = 4
[groups.careless]
share = 0.5
mistake = 0.5
position_bias = 1
"""


class InFolder:
    """A run's folder, without the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: list[str] = []

    def finished(self, stage: str) -> bool:
        return stage in self.done

    def read_json(self, name: str) -> dict[str, Any] | None:
        file = self.path / name
        return json.loads(file.read_text()) if file.exists() else None

    def write_json(self, name: str, value: object) -> None:
        (self.path / name).write_text(json.dumps(value))

    @contextmanager
    def stage(self, name: str) -> Iterator[Any]:
        yield lambda *_: None
        self.done.append(name)


@pytest.fixture
def people(tmp_path: Path) -> str:
    (tmp_path / "people.toml").write_text(PEOPLE)
    return str(tmp_path / "people.toml")


def campaign(path: Path, rater: str, **asked: Any) -> Campaign:
    path.mkdir(exist_ok=True)
    config = RLHFConfig(task="exact", rater=rater, **{"labels": 120, **asked})
    check_raters(config.plan, load_rater(rater), TASK, Seeds(0))
    folder = InFolder(path)
    return Campaign(config.plan, TASK, REFERENCE, folder, Seeds(0), folder.stage)


def labels_of(path: Path) -> Labels:
    return Labels.load(path / "labels.parquet")


def test_recruiting_takes_the_place_of_the_populations_own(people: str, tmp_path: Path) -> None:
    groups = {}
    for rule in (None, "stratified"):
        campaign(tmp_path / str(rule), people, recruiting=rule).compare(SAMPLES)
        labels = labels_of(tmp_path / str(rule))
        groups[rule] = len({who for who, group in zip(labels.rater, labels.group, strict=True) if group == "careful"})
    assert groups["stratified"] == 5
    assert groups[None] < 5


def test_training_is_paid_for_and_mends(people: str, tmp_path: Path) -> None:
    right = {}
    for questions in (0, 30):
        run = campaign(tmp_path / str(questions), people, labels=700, training_questions=questions)
        preferences = run.compare(SAMPLES)
        assert run.bought.training_labels == 10 * questions
        assert len(labels_of(tmp_path / str(questions))) == len(preferences) <= 700 - 10 * questions
        assert run.labels_bought == len(preferences) + 10 * questions <= 700
        difference = preferences.utility[:, 0] - preferences.utility[:, 1]
        right[questions] = float(((preferences.label > 0.5) == (difference > 0))[difference != 0].float().mean())
    assert right[30] > right[0] + 0.1


def test_who_is_left_out_teaches_nothing(people: str, tmp_path: Path) -> None:
    for rule in ("gold", "audit"):
        run = campaign(tmp_path / rule, people, labels=600, raters_per_item=3, gold_rate=0.5, exclude=rule)
        run.compare(SAMPLES)
        labels = labels_of(tmp_path / rule)
        group = dict(zip(labels.rater, labels.group, strict=True))
        assert 3 <= len(run.bought.excluded) < 10
        assert {group[who] for who in run.bought.excluded} == {"careless"}


def test_reliable_raters_teach_more(people: str, tmp_path: Path) -> None:
    run = campaign(tmp_path / "run", people, labels=600, raters_per_item=5, reliability="dawid-skene")
    preferences = run.compare(SAMPLES)
    labels = labels_of(tmp_path / "run")
    # Each answer by itself, in the order of its item.
    assert list(preferences.rater) == list(labels.rater)
    np.testing.assert_array_equal(preferences.label.numpy(), labels.item_label)
    reliability = run.bought.reliability
    assert reliability is not None
    of_group = {
        group: np.mean([value for who, value in reliability.items() if who.startswith(group)])
        for group in ("careful", "careless")
    }
    assert of_group["careful"] > of_group["careless"] + 0.1
    run.learn(SAMPLES, tmp_path / "model")
    plain = campaign(tmp_path / "plain", people, labels=600, raters_per_item=5)
    plain.learn(SAMPLES, tmp_path / "other")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "other")]
    assert weights[0] != weights[1]


def test_demonstrations_have_their_share_and_cost_no_label(tmp_path: Path) -> None:
    run = campaign(tmp_path / "run", "bradley-terry", demonstration_share=0.25)
    preferences = run.compare(SAMPLES)
    assert len(preferences) == 160
    shown = torch.tensor([rater == DEMONSTRATION for rater in preferences.rater])
    assert int(shown.sum()) == 40
    assert run.labels_bought == 120
    # The best of many is the better one, nearly always.
    best = torch.where(preferences.label.bool()[:, None], 0, 1)[shown, 0]
    gold = torch.stack([TASK.gold(side).utility for side in (preferences.first, preferences.second)], dim=1)[shown]
    assert (gold.gather(1, best[:, None]) >= gold.gather(1, 1 - best[:, None])).float().mean() > 0.95


def test_self_play_asks_about_the_best_by_the_first_reward_model(tmp_path: Path) -> None:
    run = campaign(tmp_path / "run", "crowd", self_play_share=0.25)
    run.learn(SAMPLES, tmp_path / "model")
    assert len(labels_of(tmp_path / "run")) == 90
    played = Labels.load(tmp_path / "run" / "labels_self_play.parquet")
    # Identical answers of both players are not compared, so that some labels may be left.
    assert 20 <= len(played) <= 30
    assert set(played.first_source) == {"best-of-8", "reference"}
    assert {*played.rater} <= {*(f"{g}-{n}" for g in {*played.group} for n in range(60)), *played.group}
    assert run.labels_bought == 90 + len(played)
    assert run.folder.finished("self_play")
    calibration = run.folder.read_json("reward_model_calibration.json")
    assert calibration is not None
    assert calibration["labels"] == run.labels_bought


@pytest.mark.parametrize("form", ["ranking", "thumbs", "score"])
def test_other_forms_are_learned_from(form: Any, people: str, tmp_path: Path) -> None:
    run = campaign(tmp_path / "run", people, form=form, labels=60, raters_per_item=2, training_questions=1)
    run.learn(SAMPLES, tmp_path / "model")
    feedback = Feedback.load(tmp_path / "run" / "feedback.parquet")
    assert set(feedback.form) == {form}
    assert len(feedback) == 50 * (4 if form == "ranking" else 1)  # 10 labels went into training.
    assert (run.labels_bought, run.bought.training_labels) == (60, 10)
    assert (tmp_path / "model" / "config.json").exists()
    assert set(feedback.source) == {"reference"}
    assert (feedback.session_time > 0).all()


def test_a_shown_order_is_as_asked_for(people: str, tmp_path: Path) -> None:
    orders: dict[str, Any] = {"fixed": 0.0, "balanced": 0.5}
    for order, share in orders.items():
        campaign(tmp_path / order, people, order=order, raters_per_item=2).compare(SAMPLES)
        swapped = labels_of(tmp_path / order).swapped
        assert swapped.mean() == share
        assert set(swapped.reshape(-1, 2).sum(axis=1)) == {2 * share}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"training_questions": 12}, "12 training questions for each of 10 raters cost 120 labels of 120"),
        ({"exclude": "gold"}, "the exclude 'gold' judges people by gold questions; raise gold_rate above 0"),
        ({"reliability": "crowd-bt", "consensus": "majority"}, "nothing is left for the consensus 'majority'"),
        ({"form": "score", "gold_rate": 0.1}, "gold_rate is of comparisons only, but the form is score"),
        ({"repeat_rate": 2.0}, r"repeat_rate is 2.0, expected a number in \[0, 1\]"),
        ({"order": "blanced"}, "Did you mean 'balanced'"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], message: str, people: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        campaign(tmp_path / "run", people, **asked)


def test_one_rater_is_not_recruited_and_a_budget_of_ones_own_is_for_once(people: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'oracle' is one rater; describe a population"):
        campaign(tmp_path / "run", "oracle", recruiting="uniform")
    with pytest.raises(UsageError, match="training would change nobody"):
        campaign(tmp_path / "run", "noisy", training_questions=1)
    Path(people).write_text("labels = 100\n" + PEOPLE)
    with pytest.raises(UsageError, match="self-play asks raters twice, but the population 'people' has a budget"):
        campaign(tmp_path / "run", people, self_play_share=0.2)


def test_comparisons_that_are_there_take_the_raters_place(tmp_path: Path) -> None:
    asked = campaign(tmp_path / "asked", "oracle")
    asked.compare(SAMPLES)
    file = tmp_path / "asked" / "preferences.parquet"
    config = RLHFConfig(task="exact", preferences=file)
    folder = InFolder(tmp_path)
    run = Campaign(config.plan, TASK, REFERENCE, folder, Seeds(1), folder.stage)
    assert run.compare(SAMPLES).label.tolist() == asked.compare(SAMPLES).label.tolist()
    check_preferences(file, REFERENCE)
    other = models.load("concierge")
    given = asked.compare(SAMPLES)
    given.first.ids[0, 0] = 400
    given.save(tmp_path / "strange.parquet", other.tokenizer)
    with pytest.raises(TextenvError, match="has the token 400, but the model 'exact' has 7 tokens"):
        check_preferences(tmp_path / "strange.parquet", REFERENCE)


def test_a_run_that_was_stopped_asks_nobody_twice(people: str, tmp_path: Path) -> None:
    run = campaign(tmp_path / "run", people, self_play_share=0.25)
    run.compare(SAMPLES)
    bought = run.bought
    again = Campaign(replace(run.plan), TASK, REFERENCE, run.folder, Seeds(0), run.stage)
    again.compare(SAMPLES)
    assert again.bought == bought
    assert pq.read_metadata(tmp_path / "run" / "labels.parquet").num_rows == 90
