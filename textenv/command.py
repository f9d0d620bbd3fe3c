"""The way into the command `textenv`: checks that the packages under our generic names are ours, then runs it.

Another distribution may bring an `agents` of its own: elsewhere on the path, where it hides ours, or
into the same folder, where the one installed last overwrites the other's files. The check stands
here, under the one name that nobody else has, and needs the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("textenv", "reward_models", "agents", "benchmarks")


def main() -> int:
    """Runs the command line, if it is ours, and returns the exit code."""
    problem = foreign_package(Path(__file__).parents[1])
    if problem is not None:
        print(f"textenv: {problem}", file=sys.stderr)
        return 1
    # Before torch is loaded: its threads wait for each other by spinning, which took the cores from whatever else
    # ran and made a run beside another job 22 times as long. Without any spinning, two threads are no faster than one.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Likewise: of the programs that oneDNN makes, most of a megabyte each, a thousand would be kept, twice over.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")
    # By name, not by an import statement: this is the one place where a floor calls one above it.
    code: int = importlib.import_module("benchmarks.cli").main()
    return code


def foreign_package(root: Path) -> str | None:
    """What is wrong with the first package that is not ours and how to mend it, or None.

    Nothing is imported but the standard library.

    Args:
        root: the folder that our four packages lie in, beside each other.
    """
    for name in PACKAGES:
        spec = find_spec(name)
        place = None if spec is None or spec.origin is None else Path(spec.origin)
        if place is None:
            return f"textenv's package {name!r} is missing from {root}; {_mend()}."
        if place.resolve() != (root / name / "__init__.py").resolve():
            return (
                f"the package {name!r} that Python finds is not textenv's: {place}{_owners(name, 'of')} hides "
                f"{root / name}. Take it off PYTHONPATH or out of the current folder, or {_mend()}."
            )
        if _overwritten(place):
            return f"{place} was overwritten{_owners(name, 'by')} after textenv was installed; {_mend()}."
    return None


def _mend() -> str:
    return "install textenv into a fresh virtual environment of its own"


def _owners(name: str, word: str) -> str:
    """Which other distributions bring a package of this name, as in " by the distribution x"."""
    others = set(importlib.metadata.packages_distributions().get(name, ())) - {"textenv"}
    return f" {word} the distribution {', '.join(sorted(others))}" if others else ""


def _overwritten(file: Path) -> bool:
    """Whether an installed file of ours no longer has the hash that its installation recorded."""
    try:
        record = importlib.metadata.distribution("textenv").files or []
    except importlib.metadata.PackageNotFoundError:
        return False  # Run from a checkout.
    wanted = f"{file.parent.name}/{file.name}"
    for entry in record:
        if str(entry) == wanted and entry.hash is not None and Path(str(entry.locate())).resolve() == file.resolve():
            digest = hashlib.new(entry.hash.mode, file.read_bytes()).digest()
            return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != entry.hash.value
    return False
