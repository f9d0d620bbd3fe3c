"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted as Linux does")

FAULTS = """
import resource, sys
import torch
if sys.argv[1] == "kept":
    from textenv.allocator import keep_freed_memory
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def pass_over():
    [torch.ones(2**18) for _ in range(32)]  # Of a mebibyte each, all freed together.
pass_over()
before = faults()
for _ in range(10):
    pass_over()
print(faults() - before)
"""


def page_faults(how: str, **environment: str) -> int:
    """Pages that a process had the system give it anew, while it made and freed the same tensors ten times."""
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_few_pages_are_asked_for_twice() -> None:
    assert page_faults("kept") < page_faults("as it comes") / 10


def test_what_the_user_has_set_stays() -> None:
    assert page_faults("kept") < page_faults("kept", MALLOC_TRIM_THRESHOLD_="131072") / 10
