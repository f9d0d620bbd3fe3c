"""The report of a benchmark, from rows that are made up."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from agents.run_folder import version
from benchmarks import report_verb
from benchmarks.experiments import load
from benchmarks.experiments.generalisation.judge import judge
from benchmarks.statistics import Interval
from benchmarks.suite import frames as framing
from benchmarks.suite.report import heat, write_report
from benchmarks.suite.results_folder import ResultsFolder
from benchmarks.suite.rows import Row
from benchmarks.suite.tables import Difference, Table, leaderboard, shown
from textenv.errors import UsageError

SHARES = {"ppo": (0.5, 0.6, 0.4), "rloo": (0.8, 0.9, 0.7), "my_pkg:Mine": (0.5, 0.7, 0.3)}
"""By agent, of the seeds 0, 1 and 2; RLOO is better by 0.3 with every seed."""
SHIPPED = sorted(file.parent for file in (Path(__file__).parents[3] / "benchmarks/results").glob("*/bench.json"))


def results(path: Path, experiment: str = "leaderboard", transfer: tuple[Row, ...] = ()) -> Path:
    rng = np.random.default_rng(0)
    with ResultsFolder.open(path) as folder:
        folder.note([{"command": f"textenv bench --experiments {experiment}", "experiment": experiment,
                      "agents": list(SHARES), "tasks": ["exact"], "raters": ["gold", "oracle"]}])  # fmt: skip
        for agent, shares in SHARES.items():
            for rater in ("gold", "oracle"):
                for seed, share in enumerate(shares):
                    cell = f"{agent}-{rater}-{seed}".replace(":", "_")
                    identity = {"cell": cell, "experiment": experiment, "agent": agent, "task": "exact",
                                "rater": rater, "variant": "", "seed": seed}  # fmt: skip
                    run = identity | {"status": "done", "own_agent": ":" in agent, "share": share, "kl": 1.0 + seed,
                                      "gold_after": 0.5 + share / 2, "tokens": 1000, "labels": 64 * (rater != "gold"),
                                      "seconds": 3.0, "finished": "2030-01-01", "version": version(), "processor": "p",
                                      "capability": "AVX2", "torch": "2"}  # fmt: skip
                    steps = [identity | {"iteration": i, "tokens": 100 * i, "seconds": 0.1 * i + 1, "kl": i / 10,
                                         "gold": 0.5 + share * i / 20, "share": share * i / 10 + rng.normal() / 100}
                             for i in range(11)]  # fmt: skip
                    sample = identity | {"number": 0, "prompt": "<b>what?</b>", "before": "no", "after": "a & b",
                                         "gold_before": 0.1, "gold_after": 0.9}  # fmt: skip
                    moved = [identity | row for row in transfer if row["rater"] == rater and row["seed"] == seed
                             and agent == "ppo"]  # fmt: skip
                    folder.add(cell, {"runs": [run], "curves": steps, "samples": [sample], "transfer": moved})
        failed = {"cell": "x", "experiment": experiment, "agent": "ppo", "task": "exact", "rater": "gold",
                  "variant": "", "seed": 3, "status": "failed", "error": "<script>out of memory",
                  "version": version()}  # fmt: skip
        folder.add("x", {"runs": [failed]})
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = results(tmp_path_factory.mktemp("bench") / "results")
    write_report(path)
    return path


@pytest.fixture(scope="module")
def page(path: Path) -> str:
    return (path / "report.html").read_text()


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert "<script" not in page
    assert "&lt;script&gt;out of memory" in page
    assert "&lt;b&gt;what?&lt;/b&gt;" in page
    assert "Content-Security-Policy" in page


def test_every_link_leads_to_a_file(path: Path, page: str) -> None:
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert any(link.endswith(".tex") for link in links)
    assert all((path / link).exists() for link in links)


def test_every_picture_says_what_it_shows_and_has_a_command_and_rows(page: str) -> None:
    pictures = page.count("<figure>")
    # A profile, and for each of two raters the share by tokens and seconds, gold by tokens, and gold against KL.
    assert pictures == 1 + 2 * 4
    assert page.count('role="img" aria-label=') == pictures
    groups = page.split("<h3>")
    drawn = {group.partition("</h3>")[0]: group for group in groups if "<figure>" in group}
    for group in drawn.values():
        assert "textenv bench --experiments leaderboard" in group
        assert group.count('<ul class="key"') == 1
    assert 'href="runs/"' in drawn["Performance profile"]
    for title in ("Share of the optimum by tokens", "Gold score by tokens", "Gold score against √KL"):
        assert 'href="curves/"' in drawn[title]


def test_verdicts_and_answers_have_their_commands_and_rows(page: str) -> None:
    verdicts = page.partition("<h3>Verdicts</h3>")[2].partition("<h3>")[0]
    assert "<pre>textenv bench --experiments leaderboard</pre>" in verdicts
    assert 'href="runs/"' in verdicts
    answers = page.partition("<h3>Answers</h3>")[2].partition("<h3>Failed runs</h3>")[0]
    assert "<pre>textenv bench --experiments leaderboard</pre>" in answers
    assert 'href="samples/"' in answers


def test_every_command_that_asked_for_an_experiment_is_shown(tmp_path: Path) -> None:
    path = results(tmp_path / "results")
    with ResultsFolder.open(path) as folder:
        folder.note([{"command": "textenv bench --seeds 9", "experiment": "leaderboard"}])
        folder.note([{"command": "textenv bench --experiments raters", "experiment": "raters"}])
    write_report(path)
    page = (path / "report.html").read_text()
    assert "<pre>textenv bench --experiments leaderboard\ntextenv bench --seeds 9</pre>" in page
    assert "--experiments raters" not in page


def test_verdicts_have_their_interval_and_own_agents_are_marked(page: str) -> None:
    assert "rloo against ppo, share: +0.300 [+0.300, +0.300] over 6 pairs of runs." in page
    assert "my_pkg:Mine (own) against ppo, share: +0.000 [" in page
    # Wherever it is shown: not once without its mark.
    assert page.count("my_pkg:Mine") == page.count("my_pkg:Mine (own)") > 5
    assert page.index('class="better">better') < page.index('class="cannot">cannot tell')


def test_tables_are_files_with_the_numbers(path: Path) -> None:
    with (path / "tables" / "leaderboard_leaderboard.csv").open() as file:
        rows = {row["agent"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["rloo", "my_pkg:Mine (own)", "ppo"] or list(rows) == ["rloo", "ppo", "my_pkg:Mine (own)"]
    assert float(rows["rloo"]["mean"]) == pytest.approx(0.8)
    assert float(rows["ppo"]["optimality gap"]) == pytest.approx(0.5)
    assert rows["ppo"]["failed"] == "1"
    assert rows["ppo"]["labels"] == "64"  # Of the runs with a rater; those by the truth have none.
    assert float(rows["rloo"]["mean low"]) < 0.8 < float(rows["rloo"]["mean high"])
    with (path / "tables" / "leaderboard_by_rater_exact.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["agent"], float(first["gold"])) == ("ppo", pytest.approx(0.5))


def test_a_page_is_the_same_whenever_it_is_made(path: Path, page: str) -> None:
    console = Console(quiet=True)
    assert report_verb.main([str(path)], console) == 0
    assert (path / "report.html").read_text() == page


def test_forms_of_a_table() -> None:
    table = Table("t", "T", ["a_b", "x"], [["50% | c", Interval(0.5, 0.25, float("nan"))], ["d", None]])
    assert table.csv() == "a_b,x,x low,x high\n50% | c,0.5,0.25,\nd,,,\n"
    assert table.markdown() == "| a_b | x |\n| --- | ---: |\n| 50% \\| c | 0.50 [0.25, –] |\n| d | – |\n"
    assert r"50\% | c & 0.50 [0.25, --] \\" in table.latex()
    assert r"a\_b & x \\" in table.latex()
    assert shown(Interval(0.5, float("nan"), float("nan"))) == "0.50"
    assert shown(Difference(-0.1, -0.196, -0.004)) == "-0.100 [-0.196, -0.004]"
    assert [shown(entry) for entry in (None, 3, 1234.5, 0.126, "a")] == ["–", "3", "1,234", "0.13", "a"]
    assert heat(-0.5) == "background:rgb(var(--negative) / 0.30)"
    assert heat("ppo") == ""


def test_runs_without_the_metric_count_in_no_statistic(tmp_path: Path) -> None:
    path = results(tmp_path / "results")
    with ResultsFolder.open(path) as folder:
        run = {"cell": "y", "experiment": "leaderboard", "agent": "ppo", "task": "exact", "rater": "gold",
               "variant": "", "seed": 4, "status": "done", "own_agent": False, "gold_after": 0.5,
               "version": version()}  # fmt: skip
        folder.add("y", {"runs": [run]})
    (frames,) = framing.load(path)
    board = leaderboard(frames, np.random.default_rng(0))
    mean = next(row for row in board.rows if row[0] == "ppo")[3]
    assert isinstance(mean, Interval)
    assert mean.value == pytest.approx(0.5)
    write_report(path)
    assert "1 of them have no share of the optimum" in (path / "report.html").read_text()


def test_of_an_agent_that_was_changed_only_runs_of_its_last_code_count(tmp_path: Path) -> None:
    path = results(tmp_path / "results")
    run = {"experiment": "leaderboard", "agent": "my_pkg:Mine", "task": "exact", "rater": "gold", "variant": "",
           "seed": 0, "status": "done", "own_agent": True, "version": version(),
           "code": '{"agent my_pkg/__init__.py": "new"}'}  # fmt: skip
    with ResultsFolder.open(path) as folder:
        folder.add("later", {"runs": [run | {"cell": "later", "share": 0.95, "finished": "2030-01-02"}]})
        folder.add("earlier", {"runs": [run | {"cell": "earlier", "share": 0.15, "finished": "2030-01-01"}]})
    (frames,) = framing.load(path)
    assert frames.strata("my_pkg:Mine (own)") == {("exact", "gold", ""): {0: 0.95}}
    # The three seeds with each of two raters, of the code before, and the run that was made again.
    assert frames.outdated == 7
    assert frames.strata("ppo")["exact", "gold", ""] == {0: 0.5, 1: 0.6, 2: 0.4}
    write_report(path)
    assert "7 runs are left out" in (path / "report.html").read_text()


def test_what_is_no_folder_of_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither bench\.json"):
        report_verb.main([str(tmp_path)], Console(quiet=True))
    with ResultsFolder.open(tmp_path) as folder:
        folder.note([{"command": "textenv bench"}])
    with pytest.raises(UsageError, match="holds no runs yet"):
        report_verb.main([str(tmp_path)], Console(quiet=True))


def test_generalisation_compares_held_out_with_test_and_other_tasks_with_nothing(tmp_path: Path) -> None:
    gains = {("exact", "test"): 0.3, ("exact", "heldout"): 0.1, ("other", "test"): -0.2}
    transfer = tuple(
        {"rater": rater, "seed": seed, "on_task": task, "split": split, "gain": gain, "gold_before": 0.5,
         "gold_after": 0.5 + gain, "kl": 1.0}
        for (task, split), gain in gains.items() for rater in ("gold", "oracle") for seed in range(3)
    )  # fmt: skip
    path = results(tmp_path / "results", "generalisation", transfer)
    (frames,) = framing.load(path)
    held_out, other = judge(frames)
    assert held_out.answer == "worse"
    assert "held-out prompts of exact against that on its test prompts: -0.200" in held_out.sentence
    assert (other.answer, load("generalisation").judge) == ("worse", judge)
    assert "gold on other after learning exact against the reference: -0.200" in other.sentence
    write_report(path)
    page = (path / "report.html").read_text()
    assert "Held-out prompts and other tasks" in page


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_rows_are_read(folder: Path) -> None:
    for frames in framing.load(folder):
        assert frames.scored
        assert frames.strata(frames.levels(frames.factor)[0])


@pytest.mark.slow
@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_rows_make_a_report(folder: Path, tmp_path: Path) -> None:
    report = write_report(Path(shutil.copytree(folder, tmp_path / folder.name)))
    assert report.leaderboards.keys() == {frames.experiment for frames in framing.load(folder)}
    assert all(board.rows for board in report.leaderboards.values())


def runs_of(agent: str, settings: str, shares: tuple[float, ...], **columns: object) -> list[Row]:
    return [
        {"cell": f"{agent}{settings}{seed}", "experiment": "defaults", "agent": agent, "settings": settings,
         "task": "exact", "rater": "gold", "variant": "", "seed": seed, "status": "done", "share": share,
         "own_agent": False, "version": version(), "learns_from": "rewards"} | columns
        for seed, share in enumerate(shares)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of two agents, beside their defaults."""
    path = tmp_path_factory.mktemp("bench") / "results"
    agents = ["ppo", "ppo n_epochs=4", "a2c", "a2c gae_lambda=1"]
    runs = [
        *runs_of("ppo", "", (0.5, 0.6, 0.4), tokens_to_50=900.0, seconds_to_50=9.0),
        *runs_of("ppo", "n_epochs=4", (0.8, 0.9, 0.7)),
        *runs_of("a2c", "", (0.2, 0.1, 0.3)),
        *runs_of("a2c", "gae_lambda=1", (0.1, 0.0, 0.2)),
    ]
    runs[1] |= {"tokens_to_50": None}
    for run in runs[3:5]:
        run |= {"tokens_to_80": 700.0, "total_variation": 0.1}
    with ResultsFolder.open(path) as folder:
        folder.note([{"command": "textenv bench --experiments defaults", "experiment": "defaults", "agents": agents,
                      "tasks": ["exact"], "raters": ["gold"]}])  # fmt: skip
        for run in runs:
            folder.add(run["cell"], {"runs": [run]})
    return path


def test_an_agents_settings_are_compared_with_its_defaults_and_stand_beside_them(tried: Path) -> None:
    (frames,) = framing.load(tried)
    compared = {row.level: (row.baseline, row.comparison.difference.value) for row in framing.compare_levels(frames)}
    assert compared == {"ppo n_epochs=4": ("ppo", pytest.approx(0.3)), "a2c": ("ppo", pytest.approx(-0.3)),
                        "a2c gae_lambda=1": ("a2c", pytest.approx(-0.1))}  # fmt: skip
    board = leaderboard(frames, np.random.default_rng(0))
    assert [row[0] for row in board.rows] == ["ppo n_epochs=4", "ppo", "a2c", "a2c gae_lambda=1"]


def test_how_soon_is_the_median_and_blank_where_most_runs_never_got_there(tried: Path) -> None:
    (frames,) = framing.load(tried)
    board = leaderboard(frames, np.random.default_rng(0))
    columns = [board.columns.index(name) for name in ("tokens to 50%", "tokens to 80%", "seconds to 50%")]
    by_level = {str(row[0]): [row[place] for place in columns] for row in board.rows}
    assert by_level["ppo"] == [900.0, None, 9.0]  # Two of three got there.
    assert by_level["ppo n_epochs=4"] == [None, 700.0, None]
    assert by_level["a2c"] == [None, None, None]


def test_every_task_has_its_rows_and_one_rater_is_not_told_from_others(tried: Path) -> None:
    write_report(tried)
    with (tried / "tables" / "defaults_task_by_task.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["task"], row["agent"]) for row in rows[:2]] == [("exact", "ppo n_epochs=4"), ("exact", "ppo")]
    assert "rater" not in rows[0]
    assert float(rows[0]["share of the optimum"]) == pytest.approx(0.8)
    assert rows[0]["learns from"] == "rewards"
    assert [row["distance from π*"] for row in rows] == ["0.1", "", "", ""]
    with (tried / "tables" / "defaults_by_task.csv").open() as file:
        assert next(csv.DictReader(file)) == {"agent": "ppo", "exact": "0.5"}


def test_the_leaderboard_is_a_picture_as_well(tried: Path) -> None:
    write_report(tried)
    picture = (tried / "tables" / "defaults_leaderboard.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000
