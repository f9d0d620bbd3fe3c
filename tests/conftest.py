"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

# Before transformers is imported: no test may wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before torch is imported: the same numbers on every processor, whose newer instructions have tests of their own.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
# Likewise: threads that spin while they wait take the cores from the processes that tests start.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tiny models are slower on two threads, and tests may share the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _labels(item: Any, rater: Any, label: Any, **columns: Any) -> Any:
    """Labels with nothing else in them than what is given; the order shown is the item's."""
    from reward_models.labels import Labels

    n = len(item)
    nobody = np.full(n, None, dtype=object)
    values: dict[str, Any] = {
        "group": nobody,
        "swapped": np.zeros(n, dtype=bool),
        "session": np.zeros(n, dtype=np.int32),
        "session_time": 10.0 * (1 + np.arange(n)),
        "first_length": np.full(n, 5, dtype=np.int32),
        "second_length": np.full(n, 5, dtype=np.int32),
        "first_source": nobody,
        "second_source": nobody,
        "utility_first": np.full(n, np.nan, dtype=np.float32),
        "utility_second": np.full(n, np.nan, dtype=np.float32),
        "gold": np.zeros(n, dtype=bool),
        "gold_answer": np.full(n, np.nan, dtype=np.float32),
    }
    return Labels(
        item=np.asarray(item, dtype=np.int64),
        rater=np.array(rater, dtype=object),
        label=np.asarray(label, dtype=np.float32),
        **{**values, **columns},
    )


def _pool(accuracy: Sequence[float], items: int, seed: int, gold_rate: float = 0.0) -> Any:
    """Every rater answers every item, in an order of the responses that is drawn, and is right at its own rate."""
    rng = np.random.default_rng(seed)
    raters = len(accuracy)
    item, rater = np.repeat(np.arange(items), raters), np.tile(np.arange(raters), items)
    truth = rng.integers(2, size=items)[item]
    swapped = rng.random(len(item)) < 0.5
    right = rng.random(len(item)) < np.array(accuracy)[rater]
    shown_truth = np.where(swapped, 1 - truth, truth)
    gold = (np.arange(items) < round(gold_rate * items))[item]
    return _labels(
        item,
        [f"rater-{number}" for number in rater],
        np.where(right, shown_truth, 1 - shown_truth),
        swapped=swapped,
        session_time=10.0 * (1 + item),
        first_length=rng.integers(4, 25, size=len(item)).astype(np.int32),
        second_length=rng.integers(4, 25, size=len(item)).astype(np.int32),
        utility_first=shown_truth.astype(np.float32),
        utility_second=1 - shown_truth.astype(np.float32),
        gold=gold,
        gold_answer=np.where(gold, shown_truth, np.nan).astype(np.float32),
    )


@pytest.fixture
def labels_from() -> Callable[..., Any]:
    """Makes labels with nothing else in them than what is given."""
    return _labels


@pytest.fixture
def label_pool() -> Callable[..., Any]:
    """Makes labels of raters who are right at known rates."""
    return _pool
