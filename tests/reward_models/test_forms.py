"""Rankings, thumbs and scores: probabilities by hand, what is kept, and what files are refused for."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest, chisquare

from reward_models.feedback import SCHEMA, Feedback
from reward_models.forms import Standard, gather
from reward_models.raters.crowd import Crowd
from reward_models.raters.material import Material
from textenv.errors import TextenvError

LN3 = math.log(3)


def material(utility: list[float]) -> Material:
    count = len(utility)
    lengths = np.arange(1, count + 1)
    return Material(np.array(utility)[:, None], np.ones(1), ("utility",), lengths, lengths, np.zeros(count, dtype=int))


def crowd(**traits: float) -> Crowd:
    values = {key: np.full(2, value) for key, value in traits.items()}
    return Crowd(("ann", "bob"), ("a", None), values, np.zeros(2))


def asked(
    form: Any, utility: list[float], times: int, seed: int = 0, standard: float = 0.0, **traits: float
) -> Feedback:
    about = material(utility)
    items = np.tile(np.arange(len(utility)), (times, 1))
    return gather(form, crowd(**traits), about, items, np.random.default_rng(0), standard=Standard(standard))


def orders(feedback: Feedback, k: int) -> Counter[tuple[int, ...]]:
    """How often which order of the item's responses came, best first."""
    ranks, response = feedback.value.reshape(-1, k), feedback.response.reshape(-1, k)
    best_first = np.take_along_axis(response, ranks.argsort(axis=1), axis=1)
    return Counter(map(tuple, best_first.tolist()))


def test_rankings_are_plackett_and_luces() -> None:
    # e^u is 3, 1 and 1: the first is best in 3/5; then 1/2 each. After the second the first comes in 3/4.
    expected = {(0, 1, 2): 0.3, (0, 2, 1): 0.3, (1, 0, 2): 0.15, (1, 2, 0): 0.05, (2, 0, 1): 0.15, (2, 1, 0): 0.05}
    counts = orders(asked("ranking", [LN3, 0.0, 0.0], 8000, rationality=1.0), 3)
    assert chisquare([counts[order] for order in expected], [8000 * p for p in expected.values()]).pvalue > 1e-4


def test_what_spoils_comparisons_spoils_rankings() -> None:
    assert orders(asked("ranking", [3.0, 2.0, 1.0], 50), 3) == {(0, 1, 2): 50}
    assert orders(asked("ranking", [3.0, 2.0, 1.0], 50, mistake=1.0), 3) == {(2, 1, 0): 50}
    counts = orders(asked("ranking", [3.0, 2.0, 1.0], 6000, clicker=0.6), 3)
    assert binomtest(counts[0, 1, 2], 6000, 0.4 + 0.1).pvalue > 1e-4
    assert len(counts) == 6
    # Two responses as a comparison: (1 − ε)·3/4 + ε/4.
    two = orders(asked("ranking", [LN3, 0.0], 6000, rationality=1.0, mistake=0.2), 2)
    assert binomtest(two[0, 1], 6000, 0.65).pvalue > 1e-4
    assert np.isnan(asked("ranking", [1.0, 0.5], 9, skip=1.0).value).all()


def test_thumbs_are_logistic() -> None:
    up = asked("thumbs", [LN3 + 1], 6000, standard=1.0, rationality=1.0, mistake=0.1).value
    assert binomtest(int(up.sum()), 6000, 0.9 * 0.75 + 0.1 * 0.25).pvalue > 1e-4
    assert (asked("thumbs", [0.9], 9, standard=1.0).value == 0).all()


def test_scores_are_graded() -> None:
    # The cuts are −2.5 to 2.5: a sure rater gives 4 to the middle, and 7 to what is 2.5 better.
    assert (asked("score", [0.0], 9).value == 4).all()
    assert (asked("score", [2.6], 9).value == 7).all()
    assert (asked("score", [2.6], 9, mistake=1.0).value == 1).all()
    value = asked("score", [0.3], 8000, rationality=1.5).value
    above = [1.0, *(1 / (1 + math.exp(-1.5 * (0.3 - cut))) for cut in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)), 0.0]
    expected = -np.diff(above) * 8000
    assert chisquare(np.bincount(value.astype(int), minlength=8)[1:], expected).pvalue > 1e-4
    clicks = np.bincount(asked("score", [9.0], 7000, clicker=1.0).value.astype(int), minlength=8)[1:]
    assert chisquare(clicks).pvalue > 1e-4


def test_who_when_and_where_are_kept(tmp_path: Path) -> None:
    feedback = asked("ranking", [3.0, 2.0, 1.0], 40)
    np.testing.assert_array_equal(feedback.value, feedback.response + 1)
    np.testing.assert_array_equal(feedback.length, feedback.response + 1)
    np.testing.assert_array_equal(feedback.utility, 3 - feedback.response)
    assert feedback.position[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert len({tuple(row) for row in feedback.response.reshape(-1, 3).tolist()}) == 6
    assert {(r, g) for r, g in zip(feedback.rater, feedback.group, strict=True)} == {("ann", "a"), ("bob", None)}
    feedback.save(tmp_path / "feedback.parquet")
    assert pq.read_schema(tmp_path / "feedback.parquet").equals(SCHEMA)
    again = Feedback.load(tmp_path / "feedback.parquet")
    for name, column in feedback.columns().items():
        np.testing.assert_array_equal(again.columns()[name], column)


def test_forms_take_the_responses_that_they_need() -> None:
    with pytest.raises(ValueError, match="1 responses a question are wrong for ranking"):
        asked("ranking", [1.0], 1)
    with pytest.raises(ValueError, match="2 responses a question are wrong for thumbs"):
        asked("thumbs", [1.0, 2.0], 1)


@pytest.mark.parametrize(
    ("form", "changed", "message"),
    [
        ("ranking", {"value": [1, 2, 2]}, "row 2 has a rank that does not follow; the ranks of a question are 1 to K"),
        (
            "ranking",
            {"form": ["ranking", "grade", "ranking"]},
            "row 1 has an unknown form; expected is one of",
        ),
        ("thumbs", {"value": [2]}, "row 0 has a thumb that is neither up nor down"),
        ("score", {"value": [7.5]}, "row 0 has a score out of range; expected is a whole number from 1 to 7"),
        ("score", {"rater": [None]}, "row 0 has no rater"),
    ],
)
def test_rows_that_cannot_be_are_named(tmp_path: Path, form: str, changed: dict[str, list[Any]], message: str) -> None:
    path = tmp_path / "feedback.parquet"
    asked(form, [3.0, 2.0, 1.0] if form == "ranking" else [1.0], 1).save(path)
    columns = pq.read_table(path).to_pydict()
    if form == "ranking":
        columns["value"] = [1, 2, 3]
    schema = pa.schema([pa.field(field.name, field.type) for field in SCHEMA])
    pq.write_table(pa.Table.from_pydict(columns | changed, schema), path)
    with pytest.raises(TextenvError, match=message):
        Feedback.load(path)
