"""What is told of the processor."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from textenv import processor

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC: one of them
flags\t\t: fpu avx2

processor\t: 1
model name\t: another
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.described.cache_clear()
    yield tmp_path / "cpuinfo"
    processor.described.cache_clear()


def test_the_first_core_counts(file: Path) -> None:
    file.write_text(X86, encoding="utf-8")
    assert processor.model_name() == "AMD EPYC: one of them"
    assert processor.maker() == "AuthenticAMD"
    assert processor.described()["flags"] == "fpu avx2"


@pytest.mark.parametrize("text", [None, "", "processor: 0\nFeatures: asimd bf16\n"])
def test_another_system_or_kind(text: str | None, file: Path) -> None:
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert processor.model_name() == (platform.processor() or platform.machine())
    assert processor.maker() == platform.machine()
