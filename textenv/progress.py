"""How a long computation tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

Numbers: TypeAlias = Mapping[str, float]
"""Numbers that say how it goes, by name."""

Progress: TypeAlias = Callable[[int, int, Numbers], None]
"""Called with what is done, its total, and the numbers."""
