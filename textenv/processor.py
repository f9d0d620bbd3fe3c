"""What Linux tells of the processor, which Python does not."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@cache
def described() -> dict[str, str]:
    """The first core's fields, such as `flags` on x86; none where there is no such file."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def model_name() -> str:
    """The name that people know it by; of some there is only the kind, such as aarch64."""
    return described().get("model name") or platform.processor() or platform.machine()


def maker() -> str:
    """Who made it, as it says itself; of others than x86 the kind, such as aarch64."""
    return described().get("vendor_id") or platform.machine()
