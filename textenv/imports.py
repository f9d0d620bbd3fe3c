"""Importing what a user names as "module:attribute", and saying where their code failed."""

from __future__ import annotations

import importlib
import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textenv.command import PACKAGES
from textenv.errors import TextenvError, UsageError

_OURS = [f"{Path(__file__).parents[1] / package}{os.sep}" for package in PACKAGES]
_NOT_THEIRS = ("<", *_OURS, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
"""How the file names begin of all code that is not the user's own."""


def imported(name: str) -> Any:
    """What "module:attribute" names.

    Raises:
        UsageError: the module or the attribute is not there, or importing it failed; it names the place.
    """
    module, _, attribute = name.partition(":")
    with users_code(f"{name!r} could not be imported", "expected is module:attribute, as in my_module:my_function"):
        return getattr(importlib.import_module(module), attribute)


@contextmanager
def users_code(failure: str, hint: str) -> Iterator[None]:
    """Turns whatever the user's code raises into a message with its file and line.

    Raises:
        UsageError: begins with `failure` and ends with the place, or with `hint` where none of their lines was run.
    """
    try:
        yield
    except TextenvError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
        end = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else f"; {hint}"
        raise UsageError(f"{failure}: {type(error).__name__}: {error}{end}") from error
