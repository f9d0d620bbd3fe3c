"""Rows of keys and values that are kept."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from textenv.kv_cache import closed_up, keep_rows

LIVE = st.lists(st.booleans(), min_size=1, max_size=12)


@given(LIVE)
def test_what_lives_on_stays_where_it_is_or_fills_a_gap(live: list[bool]) -> None:
    rows = closed_up(torch.tensor(live)).tolist()
    assert sorted(rows) == [row for row, alive in enumerate(live) if alive]
    assert all(row == place or (row >= len(rows) and not live[place]) for place, row in enumerate(rows))


@given(st.permutations(range(8)), st.integers(0, 8))
def test_any_rows_are_kept_in_any_order(order: list[int], count: int) -> None:
    rows = torch.tensor(order[:count], dtype=torch.long)
    buffers = [torch.arange(8 * 6.0).view(8, 1, 3, 2) + layer for layer in range(2)]
    expected = [buffer[rows].clone() for buffer in buffers]
    kept = keep_rows(buffers, rows)
    assert all(torch.equal(*pair) for pair in zip(kept, expected, strict=True))
    assert all(part.data_ptr() == whole.data_ptr() for part, whole in zip(kept, buffers, strict=True) if count)
