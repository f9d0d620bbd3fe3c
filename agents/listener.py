"""Who is told how a run goes, and may stop it."""

from __future__ import annotations

from typing import Protocol

from textenv.errors import TextenvError
from textenv.progress import Numbers


class Listener(Protocol):
    """Who is told how a run goes, and may stop it."""

    def progress(self, stage: str, done: int, total: int, numbers: Numbers) -> None:
        """A stage has done so much of its total; 0 where it begins. `numbers` say how it goes."""

    def end(self, stage: str, seconds: float) -> None:
        """A stage is finished."""

    def stopping(self) -> bool:
        """Whether the run is asked to stop after the current step."""


class Stopped(TextenvError):
    """The run was asked to stop, and can go on."""

    exit_code = 130
