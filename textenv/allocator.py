"""What the C library does with the memory that torch frees."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

KEPT = 512 * 2**20
"""Bytes of freed memory that are kept at most."""
LARGEST = 32 * 2**20
"""Bytes of a tensor that is made of kept memory at most; a larger one comes from the system and goes back to it."""

SETTINGS = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
"""Environment variables by which users set the same."""

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next tensors, where it would give it back to the system.

    Each pass of a model frees what it has made, and the next asks for as much: to give pages back and have them
    cleared anew took up to a fifth of the time of decoding. Other C libraries do not know the call, and what the
    user has set stays.
    """
    if not sys.platform.startswith("linux") or os.environ.keys() & SETTINGS:
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, LARGEST)
        set_option(_TRIM_THRESHOLD, KEPT)
