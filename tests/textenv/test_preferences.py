import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv import tasks
from textenv.errors import TextenvError, UsageError
from textenv.preferences import SCHEMA, Preferences
from textenv.responses import Prompts, Responses

PAD = 0
TOKENS = st.lists(st.integers(1, 6), min_size=1, max_size=4)
COMPARISON = st.tuples(
    TOKENS,
    TOKENS,
    TOKENS,
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from(["ann", "bob"]),
    st.floats(0, 1e6),
    st.just(math.nan) | st.floats(-9, 9, width=32),
    st.just(math.nan) | st.floats(0, 1, width=32),
)


def make(rows) -> Preferences:
    prompt, first, second, label, rater, time, utility, probability = (
        list(column) for column in zip(*rows, strict=True)
    )
    prompts = Prompts.from_lists(prompt, PAD)
    return Preferences(
        Responses.from_lists(prompts, first, PAD),
        Responses.from_lists(prompts, second, PAD),
        torch.tensor(label),
        rater,
        torch.tensor(time, dtype=torch.float64),
        torch.tensor([[value, -value] for value in utility]),
        torch.tensor(probability),
    )


def assert_same(one: Preferences, other: Preferences) -> None:
    assert one.prompts.to_lists() == other.prompts.to_lists()
    assert one.first.to_lists() == other.first.to_lists()
    assert one.second.to_lists() == other.second.to_lists()
    assert list(one.rater) == list(other.rater)
    for name in ("label", "session_time", "utility", "probability"):
        before, after = getattr(one, name), getattr(other, name)
        assert before.dtype == after.dtype
        torch.testing.assert_close(before, after, rtol=0, atol=0, equal_nan=True)


ROWS = [
    ([2], [3, 4, 1], [5], 1.0, "ann", 3.25, 0.5, 0.75),
    ([2, 3], [3], [4, 4], 0.0, "bob", 7.5, math.nan, math.nan),
    ([2], [5, 1], [6, 6, 6], 0.5, "ann", 9.0, -1.25, 0.125),
]


@pytest.fixture(scope="module")
def tokenizer():
    return tasks.load("exact").tokenizer


@settings(deadline=None, max_examples=25)
@given(rows=st.lists(COMPARISON, min_size=1, max_size=6))
def test_a_file_gives_back_what_was_saved(rows, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("preferences") / "p.parquet"
    preferences = make(rows)
    preferences.save(path, tokenizer)
    assert_same(Preferences.load(path, PAD), preferences)


def test_the_file_has_the_documented_columns_and_text_for_people(tokenizer, tmp_path):
    make(ROWS).save(tmp_path / "p.parquet", tokenizer)
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.column("first").to_pylist() == ["b c", "b", "d"]  # token 1 is the end of the sequence
    assert table.column("utility_second").to_pylist() == [-0.5, None, 1.25]
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_files_that_cannot_be_read_say_why(tokenizer, tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(TextenvError, match="there is no preferences file"):
        Preferences.load(path, PAD)
    make(ROWS).save(path, tokenizer)
    table = pq.read_table(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TextenvError, match="cannot be read as Parquet"):
        Preferences.load(path, PAD)
    pq.write_table(table.drop_columns(["label", "rater"]), path)
    with pytest.raises(TextenvError, match="lacks the columns label, rater"):
        Preferences.load(path, PAD)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(TextenvError, match="holds no comparison"):
        Preferences.load(path, PAD)
    for name, wrong in [
        ("label", pa.array([1.0, 2.0, 0.0])),
        ("label", pa.array([1.0, None, 0.0])),
        ("label", pa.array(["yes", "no", "no"])),
        ("prompt_ids", pa.array([[2], [], [3]])),
        ("first_ids", pa.array([[2], None, [3]])),
    ]:
        pq.write_table(table.set_column(table.column_names.index(name), name, wrong), path)
        with pytest.raises(TextenvError, match=r"p\.parquet"):
            Preferences.load(path, PAD)


def test_files_of_others_need_neither_text_columns_nor_our_types(tokenizer, tmp_path):
    path = tmp_path / "p.parquet"
    make(ROWS).save(path, tokenizer)
    table = pq.read_table(path).drop_columns(["prompt", "first", "second"])
    place = table.column_names.index("label")
    pq.write_table(table.set_column(place, "label", table.column("label").cast(pa.float64())), path)
    assert_same(Preferences.load(path, PAD), make(ROWS))


def test_paired_puts_both_responses_side_by_side():
    paired = make(ROWS).paired()
    assert paired.group_size == 2
    assert paired.to_lists() == [[3, 4, 1], [5], [3], [4, 4], [5, 1], [6, 6, 6]]
    assert paired.prompts.to_lists() == [[2], [2, 3], [2]]


def test_indexing_chooses_and_orders_comparisons():
    assert_same(make(ROWS)[torch.tensor([2, 0])], make([ROWS[2], ROWS[0]]))


@settings(deadline=None, max_examples=25)
@given(count=st.integers(20, 60), share=st.floats(0.5, 0.9), seed=st.integers(0, 99))
def test_split_keeps_the_comparisons_of_a_prompt_together(count, share, seed):
    rows = [([1 + i % 3, 1 + i // 3 % 5, 1 + i // 15], [1], [2], 1.0, "ann", float(i), 0.0, 0.5) for i in range(count)]
    train, held_out = make(rows * 2).split(share, torch.Generator().manual_seed(seed))
    train_prompts, held_out_prompts = ({tuple(p) for p in side.prompts.to_lists()} for side in (train, held_out))
    assert not train_prompts & held_out_prompts
    assert len(held_out_prompts) == min(count - 1, round(share * count))
    assert len(train) == 2 * len(train_prompts)
    assert len(held_out) == 2 * len(held_out_prompts)


def test_split_of_few_prompts_keeps_a_pair_together_in_either_order():
    rows = [([2], [1 + i], [7 + i], 1.0, "ann", 0.0, 0.0, 0.5) for i in range(6)]
    swapped = [(prompt, second, first, *rest) for prompt, first, second, *rest in rows]
    train, held_out = make(rows + swapped).split(0.3, torch.Generator().manual_seed(0))
    pairs = [
        [frozenset(map(tuple, pair)) for pair in zip(side.first.to_lists(), side.second.to_lists(), strict=True)]
        for side in (train, held_out)
    ]
    assert not set(pairs[0]) & set(pairs[1])
    assert (len(train), len(held_out)) == (8, 4)


def test_split_is_the_generators():
    preferences = make([([2], [1], [1 + i], 1.0, "ann", float(i), 0.0, 0.5) for i in range(1, 40)])
    times = [preferences.split(0.3, torch.Generator().manual_seed(seed))[1].session_time.tolist() for seed in (0, 0, 1)]
    assert times[0] == times[1] != times[2]


def test_one_pair_cannot_be_split():
    with pytest.raises(UsageError, match="at least 2 pairs"):
        make(ROWS[:1]).split(0.5, torch.Generator())


def test_columns_that_do_not_fit_together_are_refused():
    good = make(ROWS)
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    other = make([([3], *row[1:]) for row in ROWS])
    for name, wrong in {
        "rater": ["ann"],
        "label": good.label[:2],
        "first": good.paired(),
        "second": other.second,
        "utility": good.utility.T,
        "probability": good.probability[:1],
    }.items():
        with pytest.raises(ValueError, match=r"but|shape|same prompts"):
            Preferences(**{**fields, name: wrong})
    with pytest.raises(ValueError, match="between 0 and 1"):
        Preferences(**{**fields, "label": torch.tensor([0.0, 1.0, 1.5])})
