"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted as Linux does")

FAULTS = """
import ctypes, resource
import torch
from textenv.allocator import keep_freed_memory
def faults():
    [torch.ones(2**18) for _ in range(32)]  # Of a mebibyte each, all freed together.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.ones(2**18) for _ in range(32)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# The C library's own threshold, which by itself moves with what is freed, so that chance decides.
ctypes.CDLL(None).mallopt(-3, 2**17)
print(faults())
keep_freed_memory()
faults()
print(faults())
"""


def page_faults(**environment: str) -> list[int]:
    """Pages that the system gives anew while the same tensors are made and freed: before and after the call."""
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_few_pages_are_asked_for_again() -> None:
    before, after = page_faults()
    assert after < before / 10


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_the_user_has_set_stays(setting: str) -> None:
    before, after = page_faults(**{setting: "131072"})
    assert after > before / 2
