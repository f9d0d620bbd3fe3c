"""`textenv raters`: list, show and simulate."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.rlhf import RLHFConfig, prepare
from benchmarks import cli, raters
from benchmarks.raters.show import text_plot
from reward_models.comparisons import LabelBudget, compare
from reward_models.feedback import Feedback
from reward_models.labels import Labels
from reward_models.raters import RATERS, Rater
from reward_models.raters.parts import PARTS
from textenv import models, tasks
from textenv.preferences import Preferences
from textenv.tasks.base import prompts_of

TOWN = """
raters = 6
recruiting = "stratified"
money = 20
[groups.sure]
cost = 0.5
[groups.unsure]
rationality = { mean = 0.5, spread = 0.1 }
weights = { answer = 2.0 }
reads = 3
"""


@pytest.fixture
def town(tmp_path: Path) -> str:
    (tmp_path / "town.toml").write_text(TOWN)
    return str(tmp_path / "town.toml")


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["raters", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in raters.VERBS)
    assert cli.main(["raters"]) == 2
    assert cli.main(["raters", "sow"]) == 2
    assert "unknown verb of raters 'sow'. Did you mean 'show'?" in capsys.readouterr().err


def test_the_list_has_every_rater_and_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["raters", "list"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {*RATERS, *PARTS} <= names


def test_a_raters_parts_and_curve_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["raters", "show", "myopic", "--out", str(tmp_path / "curve.svg")]) == 0
    out = capsys.readouterr().out
    assert "discount" in out
    assert "[a(y≤t)" in out.replace("\n", "")
    assert "expected label" in (tmp_path / "curve.svg").read_text()


def test_a_populations_groups_are_shown(capsys: pytest.CaptureFixture[str], town: str, tmp_path: Path) -> None:
    assert cli.main(["raters", "show", town, "--out", str(tmp_path / "curve.png")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "town: 6 raters, recruiting stratified" in out
    assert "20 of money" in out
    assert "0.5 ± 0.1" in out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [*RATERS, "readme.toml"])
def test_everybody_who_is_known_or_described_in_the_readme_is_shown(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    described = next(block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[groups." in block)
    (tmp_path / "readme.toml").write_text(described, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["raters", "show", name]) == 0
    out = capsys.readouterr().out
    assert "rationality" in out
    assert ("budget unbounded" in " ".join(out.split())) == (name in ("crowd", "readme.toml"))


def test_a_curve_as_text() -> None:
    assert text_plot(np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.5, 1.0]), 5) == [
        "1.00 ┼  •",
        "0.75 ┼",
        "0.50 ┼ •",
        "0.25 ┼",
        "0.00 ┼•",
        "     └───",
        "      -101",
    ]


def test_labels_are_simulated(capsys: pytest.CaptureFixture[str], town: str, tmp_path: Path) -> None:
    flags = ["--task", "exact", "--rater", town, "--labels", "90", "--raters-per-item", "3", "--gold-rate", "0.1"]
    for name in ("one", "two"):
        assert cli.main(["raters", "simulate", *flags, "--out", str(tmp_path / f"{name}.parquet")]) == 0
    labels = Labels.load(tmp_path / "one.parquet")
    assert "labels" in capsys.readouterr().out
    assert set(labels.group) == {"sure", "unsure"}
    assert len(labels.codes("rater")[0]) == 6
    # 20 of money buys 90 labels at 0.5 for a half of them or nearly so, and is not overspent.
    assert 0.5 * (labels.group == "sure").sum() <= 20
    assert 70 <= len(labels) <= 90
    assert 5 <= labels.gold.sum() <= 9
    again = Labels.load(tmp_path / "two.parquet")
    np.testing.assert_array_equal(labels.label, again.label)
    np.testing.assert_array_equal(labels.rater, again.rater)


def test_people_are_trained_recruited_and_asked_again(tmp_path: Path) -> None:
    flags = ["--task", "exact", "--rater", "crowd", "--labels", "480", "--training-questions", "4", "--out"]
    more = ["--recruiting", "stratified", "--order", "fixed", "--repeat-rate", "0.5"]
    assert cli.main(["raters", "simulate", *flags, str(tmp_path / "l.parquet"), *more]) == 0
    labels = Labels.load(tmp_path / "l.parquet")
    # 240 of the labels went into training; of the others a third are questions asked again in the other order.
    assert len(labels) == 240
    assert labels.swapped.tolist() == [False] * 160 + [True] * 80
    again = set(zip(labels.rater[:160], labels.item[:160], strict=True))
    assert set(zip(labels.rater[160:], labels.item[160:], strict=True)) <= again


def test_two_models_are_compared(tmp_path: Path) -> None:
    flags = ["--against", "concierge-pretrained", "--labels", "28", "--out", str(tmp_path / "labels.parquet")]
    assert cli.main(["raters", "simulate", *flags]) == 0
    labels = Labels.load(tmp_path / "labels.parquet")
    # Of the pairs of eight responses to a prompt 16 in 28 are of two models.
    assert set(labels.first_source) == {"concierge", "concierge-pretrained"}
    assert 8 <= (labels.first_source != labels.second_source).sum() <= 24


def test_a_rater_by_name_gives_labels_too(tmp_path: Path) -> None:
    flags = ["--task", "exact", "--rater", "oracle", "--labels", "40", "--out", str(tmp_path / "labels.parquet")]
    assert cli.main(["raters", "simulate", *flags]) == 0
    labels = Labels.load(tmp_path / "labels.parquet")
    assert len(labels) == 40
    decided = labels.utility_first != labels.utility_second
    better = labels.utility_first > labels.utility_second
    np.testing.assert_array_equal(labels.label[decided], better[decided])


@pytest.mark.parametrize(
    ("form", "rows", "values"), [("ranking", 160, range(1, 9)), ("thumbs", 20, range(2)), ("score", 20, range(1, 8))]
)
def test_other_forms_of_feedback_are_simulated(
    form: str, rows: int, values: range, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["--task", "exact", "--form", form, "--labels", "20", "--out", str(tmp_path / "feedback.parquet")]
    assert cli.main(["raters", "simulate", *flags]) == 0
    feedback = Feedback.load(tmp_path / "feedback.parquet")
    assert len(feedback) == rows
    assert set(feedback.value) <= set(values)
    assert np.corrcoef(feedback.value, feedback.utility)[0, 1] * (-1 if form == "ranking" else 1) > 0.3
    assert "correlation with the true utility" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_comparisons_go_to_trls_formats_and_come_back(
    form: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task, reference = tasks.load("exact"), models.load("exact")
    samples = reference.sample(
        prompts_of(task, task.fixed_prompts("train", 8)), max_tokens=5, group_size=4,
        generator=torch.Generator().manual_seed(0),
    ).responses  # fmt: skip
    utility = task.gold(samples).utility
    given = compare(samples, utility, Rater("bt", rationality=2.0), LabelBudget(20), np.random.default_rng(0))
    given.save(tmp_path / "given.parquet", reference.tokenizer)
    flags = ["--format", form, "--model", "exact", "--out"]
    trl, back = str(tmp_path / "trl.jsonl"), str(tmp_path / "back.parquet")
    assert cli.main(["raters", "export", str(tmp_path / "given.parquet"), *flags, trl]) == 0
    assert f"{20 if form == 'paired' else 40} rows written" in capsys.readouterr().out
    assert cli.main(["raters", "import", trl, *flags, back]) == 0
    came = Preferences.load(tmp_path / "back.parquet", reference.pad_id)
    assert came.label.tolist() == [1.0] * len(came)
    if form == "paired":
        won = [
            (first if label else second)
            for first, second, label in zip(given.first.to_lists(), given.second.to_lists(), given.label, strict=True)
        ]
        # An end that was cut off at the budget is written as one.
        assert [reference.tokenizer.decode(ids, skip_special_tokens=True) for ids in came.first.to_lists()] == [
            reference.tokenizer.decode(ids, skip_special_tokens=True) for ids in won
        ]
    # What came back can be learned from, by the tokens that this model has.
    config = RLHFConfig(task="exact", preferences=tmp_path / "back.parquet")
    assert prepare(config).inputs().keys() >= {"back.parquet (--preferences)"}
    assert cli.main(["raters", "import", trl, *flags, str(tmp_path / "back.json")]) == 2
    assert "a preferences file is Parquet" in capsys.readouterr().err


def test_a_million_labels_are_timed_with_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--labels 40 --raters 10 --prompts 2 --estimated-labels 50 --estimated-raters 10"
    assert cli.main(["raters", "speed", *flags.split()]) == 0
    out = capsys.readouterr().out
    assert all(f"preset {name}" in out for name in RATERS)
    assert all(f"part {key}" in out for key in PARTS)
    assert "dawid-skene" in out
    assert "crowd-bt" in out
    assert cli.main(["raters", "speed", "--raters", "0"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("show oracle --out curve.pdf", "--out is curve.pdf, expected a name that ends with .png or .svg"),
        ("show oracle --seed -1", "--seed is -1, expected 0 or more"),
        ("show orcale", "unknown rater 'orcale'. Did you mean 'oracle'?"),
        ("show gone.toml", "there is no population file gone.toml"),
        ("simulate --out l.parquet --labels 0", "--labels is 0, expected 1 or more"),
        ("simulate --out l.parquet --repeat-rate -1", "--repeat-rate is -1.0, expected a number in [0, 1]"),
        (
            "simulate --out l.parquet --recruiting uniform",
            "recruiting uniform is of populations, but 'bradley-terry' is",
        ),
        ("simulate --out l.parquet --training-questions 3", "training would change nobody: it acts on blindness, halo"),
        (
            "simulate --out l.parquet --rater crowd --labels 200 --training-questions 4",
            "4 training questions for each of 60 raters cost 240 labels of 200, so that none is left",
        ),
        ("simulate --out l.parquet --gold-rate 2", "--gold-rate is 2.0, expected a number in [0, 1]"),
        (
            "simulate --out l.parquet --gold-rate 0.1 --form score",
            "gold_rate is of comparisons only, but the form is score",
        ),
        (
            "simulate --out l.parquet --labels 9 --against exact",
            "'exact' has another vocabulary than the task",
        ),
        ("simulate --out l.parquet --labels 2 --raters-per-item 3", "2 labels are too few for one item of 3 raters"),
    ],
)
def test_what_cannot_be_asked(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["raters", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
