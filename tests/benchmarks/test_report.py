"""The report is read back with a parser: it loads nothing, escapes everything and lacks only what the run lacks."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.report import colour_scale, number, read_run, strength, write_report
from textenv.errors import TextenvError, UsageError

SECTIONS = ["headline", "summary", "curves", "reward-model", "answers", "health", "time", "command", "config"]
VOID = {"meta", "br", "hr", "img", "input", "link"}

CONFIG = {
    "task": "concierge", "agent": "ppo", "model": None, "reward": "learned", "rater": "noisy", "labels": 2000,
    "tokens": 160000, "seed": 3, "learning_rate": 0.0003, "whiten_rewards": True, "reward_model": {"epochs": 2},
}  # fmt: skip
SUMMARY = {
    "task": "concierge", "agent": "ppo", "reward": "learned", "rater": "noisy", "seed": 3,
    "gold_before": 0.461, "gold_after": 0.803, "reward_before": 0.012, "reward_after": 1.874, "kl": 4.62,
    "objective": 1.71, "objective_reference": -0.42, "objective_optimum": 2.19, "optimum_stderr": 0.031,
    "share": 0.816, "share_low": 0.78, "share_high": 0.85, "gold_best_of_n": 0.91, "samples_per_prompt": 64,
    "reward_objective": 1.41, "reward_objective_reference": -0.02, "reward_objective_optimum": 1.6,
    "reward_optimum_stderr": 0.02, "reward_share": 0.88, "reward_model_accuracy": 0.842,
    "labels": 2000, "tokens": 161280, "seconds": 103.2, "peak_rss_mb": 1412.0,
}  # fmt: skip
DESCRIPTION = {
    "version": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0", "threads": 2, "dtype": "float32",
    "processor": "AVX512", "created": "2026-11-22T13:40:00+00:00", "config": CONFIG,
}  # fmt: skip
ANSWERS = [
    (
        "the bakery is on mill street . the museum opens at nine . i think the museum opens at ten . "
        "the museum opens when ?",
        "it opens at ten , as you say .", "good morning . the museum opens at nine .", 0.31, 0.94,
    ),
    (
        "the inn has a garden . the ferry leaves at noon . the bank is near what ?",
        "the bank is on harbour road .", "i am sorry , i do not know .", 0.22, 0.81,
    ),
    ("the castle is old . how do i steal a boat ?", "take the rope .", "i will not help with that .", 0.12, 0.88),
    (
        "x < y & z : <script>alert('prompt')</script>",
        "<img src=http://example.com/before.png>", "<b>after</b> </p> \"quoted\"", 0.5, 0.4,
    ),
]  # fmt: skip


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


def sample_row(rng: np.random.Generator, answer: tuple[str, str, str, float, float]) -> dict[str, object]:
    prompt, before, after, gold_before, gold_after = answer
    tokens = [*re.findall(r"\s?\S+", after), "<eos>"]
    rewards = [float(value) for value in rng.normal(-0.03, 0.06, len(tokens))]
    rewards[-1] += 3 * (gold_after - 0.5)
    return {
        "prompt": prompt, "before": before, "after": after, "gold_before": gold_before, "gold_after": gold_after,
        "reward_before": 3 * (gold_before - 0.5), "reward_after": 3 * (gold_after - 0.5),
        "tokens_after": tokens, "token_rewards_after": rewards,
    }  # fmt: skip


def write_metrics(folder: Path, rng: np.random.Generator, columns: set[str]) -> None:
    """Two parts of 35 iterations in the shape of a run that learns."""
    count = 70
    done = (np.arange(count) + 1) / count
    rise = 1 - np.exp(-3 * done)
    noise = rng.normal(0, 1, (8, count))
    values = {
        "timesteps": (2304 * (np.arange(count) + 1)).tolist(),
        "kl": (4.6 * rise + 0.2 * noise[0] * rise).tolist(),
        "gold": (0.46 + 0.34 * rise - 0.05 * done**4 + 0.02 * noise[1]).tolist(),
        "reward": (1.9 * rise + 0.1 * noise[2]).tolist(),
        "entropy": (1.4 - 0.7 * rise + 0.03 * noise[3]).tolist(),
        "beta": (0.3 * np.exp(0.4 * rise)).tolist(),
        "response_length": (11 - 2 * rise + 0.3 * noise[4]).tolist(),
        "clip_fraction": np.abs(0.12 + 0.02 * noise[5]).tolist(),
        "explained_variance": [None, *(0.8 * rise + 0.05 * noise[6]).tolist()[1:]],
    }
    (folder / "metrics").mkdir()
    table = pa.table({name: column for name, column in values.items() if name in columns | {"timesteps"}})
    pq.write_table(table.slice(0, 35), folder / "metrics" / "part-000080640.parquet")
    pq.write_table(table.slice(35), folder / "metrics" / "part-000161280.parquet")


METRICS = {"kl", "gold", "reward", "entropy", "beta", "response_length", "clip_fraction", "explained_variance"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with a learned reward, as the loop leaves it, to be changed."""
    return finished_run(tmp_path / "run")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of such a run, to be read."""
    return write_report(finished_run(tmp_path_factory.mktemp("reports") / "run"))


def finished_run(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    write_json(folder / "config.json", DESCRIPTION)
    write_json(folder / "summary.json", SUMMARY)
    stages = {"evaluate": 9.1, "reinforce": 61.4, "compare": 6.2, "reward_model": 14.9, "reference": 11.6}
    for name, seconds in stages.items():
        write_json(folder / "stages" / f"{name}.json", {"seconds": seconds, "numbers": {}})
    bins = [
        {"predicted": 0.05 + 0.1 * place, "observed": 0.1 + 0.09 * place, "count": 20 + 9 * abs(place - 5)}
        for place in range(10)
    ]
    write_json(
        folder / "reward_model_calibration.json",
        {"bins": bins, "accuracy_true": 0.842, "accuracy_labels": 0.731, "ceiling_true": 1.0, "ceiling_labels": 0.79},
    )
    write_metrics(folder, rng, METRICS)
    pq.write_table(pa.Table.from_pylist([sample_row(rng, each) for each in ANSWERS]), folder / "samples.parquet")
    return folder


class Page(HTMLParser):
    """The page as a reader gets it: text by section, attributes and whether every element is closed."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text: dict[str, str] = {}
        self.section = "head"
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = values["id"]
        self.ids += [values["id"]] if "id" in values else []
        self.attributes += [(tag, name, value) for name, value in values.items()]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + data

    def values(self, name: str) -> list[str]:
        return [value for _, each, value in self.attributes if each == name]

    def pictures(self) -> list[str]:
        return [value for tag, name, value in self.attributes if tag == "svg" and name == "aria-label"]


def test_a_finished_run_has_every_section_and_the_numbers(report: Path) -> None:
    assert report.name == "report.html"
    page = Page(report)
    assert [name for name in page.text if name != "head"] == SECTIONS
    headline = " ".join(page.text["headline"].split())
    for text in (
        "0.46 → 0.80",
        "+0.34",
        "0.82 [0.78, 0.85]",
        "4.62",
        "0.84 of 1.00 true order; labels 0.73 of 0.79",
        "2.190 ± 0.031",
    ):
        assert text in headline
    assert "0.731" in page.text["reward-model"]
    stages = "reference 11.6 compare 6.2 reward model 14.9 reinforce 61.4 evaluate 9.1 all stages 103.2"
    assert stages in " ".join(page.text["time"].split())
    assert page.pictures()[:5] == [
        "Gold score against KL", "Gold score against tokens",
        "Learned reward against KL", "Learned reward against tokens",
        "Predicted and observed preferences",
    ]  # fmt: skip
    assert "--rater noisy --labels 2000 --tokens 160000 --seed 3 --learning-rate 0.0003" in page.text["command"]
    assert "reward_model.epochs" in page.text["config"]
    assert "eft out" not in page.source


def test_the_page_stands_alone(report: Path) -> None:
    page = Page(report)
    assert not page.values("src")
    links = page.values("href") + page.values("xlink:href")
    assert links
    assert all(link.removeprefix("#") in page.ids for link in links)
    assert "url(http" not in page.source
    assert "@import" not in page.source
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "iframe", "img", "object"}
    assert len(page.ids) == len(set(page.ids))
    assert len(page.source.encode()) < 500_000


def test_texts_are_escaped(report: Path) -> None:
    page = Page(report)
    assert "<script>alert('prompt')</script>" in page.text["answers"]
    assert "<img src=http://example.com/before.png>" in page.text["answers"]
    assert '</p> "quoted"' in page.text["answers"]
    assert "<script" not in page.source
    assert "<img" not in page.source


def test_the_same_run_gives_the_same_bytes(report: Path) -> None:
    first = report.read_bytes()
    assert write_report(report.parent).read_bytes() == first


def test_every_token_shows_its_reward(report: Path) -> None:
    rows = pq.read_table(report.parent / "samples.parquet").to_pylist()
    page = Page(report)
    titles = [value for tag, name, value in page.attributes if tag == "span" and name == "title"]
    expected = [number(reward, 4, sign=True) for row in rows for reward in row["token_rewards_after"]]
    assert titles[9:] == expected  # nine swatches of the legend come first
    assert titles[4] == "0.0000"


def test_what_the_run_lacks_is_left_out_with_a_reason(run: Path) -> None:
    """The user's own prompts with VADER: no truth, no raters, no reward model."""
    lacking = {"gold_before", "gold_after", "objective", "objective_reference", "objective_optimum", "share"}
    lacking |= {"optimum_stderr", "share_low", "share_high", "reward_share", "reward_model_accuracy"}
    config = CONFIG | {"reward": "vader", "task": "text"}
    write_json(run / "config.json", DESCRIPTION | {"config": config})
    write_json(run / "summary.json", {key: None if key in lacking else value for key, value in SUMMARY.items()})
    (run / "reward_model_calibration.json").unlink()
    for part in (run / "metrics").iterdir():
        pq.write_table(pq.read_table(part).drop_columns(["gold"]), part)
    rows = pq.read_table(run / "samples.parquet").to_pylist()
    no_gold = [row | {"gold_before": None, "gold_after": None} for row in rows]
    pq.write_table(pa.Table.from_pylist(no_gold), run / "samples.parquet")
    page = Page(write_report(run))
    assert "no truth is known" in page.text["headline"]
    assert "0.01 →" in " ".join(page.text["headline"].split())
    assert "gold curves are left out" in page.text["curves"]
    assert "“vader” was used as it is" in page.text["reward-model"]
    assert "gold" not in page.text["answers"]
    assert page.pictures()[:2] == ["Reward against KL", "Reward against tokens"]


def test_no_share_where_it_is_not_known(run: Path) -> None:
    unknown = {"share": None, "share_low": None, "share_high": None, "effective_sample_size": 4.4}
    write_json(run / "summary.json", SUMMARY | unknown)
    page = Page(write_report(run))
    assert "too few effective samples" in page.text["headline"]
    assert "not known: 4 effective samples a prompt" in page.text["summary"]
    # An optimum from so few samples is shown nowhere.
    assert "2.19" not in page.text["headline"] + page.text["summary"]


def test_a_run_that_has_just_begun_is_reported_too(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    write_json(run / "config.json", DESCRIPTION)
    page = Page(write_report(run))
    assert [name for name in page.text if name != "head"] == SECTIONS
    assert f"textenv train --resume '{run}'" in page.text["headline"]
    assert "no iteration has been logged yet" in page.text["curves"]
    assert page.pictures() == []


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["summary.json", "samples.parquet", "metrics/part-000080640.parquet"])
def test_a_damaged_file_is_named_and_the_old_report_kept(run: Path, name: str) -> None:
    (run / "report.html").write_text("the report of yesterday")
    (run / name).write_bytes(b"{ cut sho")
    with pytest.raises(TextenvError, match=name.split("/")[-1]):
        write_report(run)
    assert (run / "report.html").read_text() == "the report of yesterday"


def test_the_colour_scale_is_symmetric_and_shows_small_rewards_beside_large_ones() -> None:
    scale = colour_scale([0.1, -0.1, 0.1, math.nan, 10.0])
    assert scale == (10.0, 0.1)
    assert strength(10, scale) == 1
    assert strength(-10, scale) == -1
    assert strength(20, scale) == 1
    assert strength(0, scale) == strength(None, scale) == 0
    # asinh(1) / asinh(100) = 0.88137 / 5.29834
    assert strength(0.1, scale) == pytest.approx(0.16635, abs=1e-5)
    assert strength(-0.1, scale) == -strength(0.1, scale)
    assert colour_scale([]) == (1.0, 1.0)


def test_a_colour_scale_does_not_blow_up_rounding() -> None:
    scale = colour_scale([1e-8, -1e-8, 1e-8, 2.0])
    assert scale == (2.0, 0.002)
    assert abs(strength(1e-8, scale)) < 1e-5


def test_tokens_make_the_text_with_the_spaces_that_they_carry(run: Path) -> None:
    rows = pq.read_table(run / "samples.parquet").to_pylist()
    rows[0] |= {"tokens_after": ["The", " inn", "s"], "token_rewards_after": [0.1, None, 0.3]}
    pq.write_table(pa.Table.from_pylist(rows), run / "samples.parquet")
    text = Page(write_report(run)).text["answers"]
    assert "The inns\n" in text
    assert "i am sorry , i do not know .<eos>\n" in text


def test_an_iterations_answers_are_those_of_the_policy_before_it(run: Path) -> None:
    """They are drawn against the tokens that it had learned from, so the first lie at 0."""
    tokens = read_run(run).tokens_before
    assert tokens is not None
    assert tokens[:3].tolist() == [0, 2304, 4608]
    assert len(tokens) == 70


def test_a_run_on_the_truth_has_one_share(run: Path) -> None:
    assert Page(write_report(run)).text["summary"].count("Share of the optimum") == 2
    write_json(run / "summary.json", SUMMARY | {"reward": "gold"})
    assert Page(write_report(run)).text["summary"].count("Share of the optimum") == 1


def test_numbers_for_people() -> None:
    assert number(1234567.0, 0) == "1\u2009234\u2009567"
    assert number(-0.001) == "0.00"
    assert number(-1.5, sign=True) == "\u22121.50"
    assert number(1.5, sign=True) == "+1.50"
    assert number(None) == number(math.nan) == "–"
