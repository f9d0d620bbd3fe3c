"""What goes wrong, said so that the reader can mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TextenvError(Exception):
    """A failure that the user can understand; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(TextenvError, ValueError):
    """The request itself was wrong: a bad name, value or file."""

    exit_code = 2


class RenderModeError(UsageError, TypeError):
    """There is no such render mode; stable-baselines3 tries one on every id, and goes on without at a TypeError."""


class DiskError(TextenvError):
    """A file or a folder could not be written; what was there before is kept."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that is not known, listing the known ones with the nearest first."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=len(names), cutoff=0.5)
    ordered = nearest + [other for other in names if other not in nearest]
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UsageError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(ordered) or 'none'}.")


def first_line(error: Exception) -> str:
    """What an error of another library says, without its longer explanations and the full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
