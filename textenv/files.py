"""Writing files and folders so that they are there whole or not at all.

What is new is written to a hidden sibling, flushed to the disk and renamed into place. A process
that is killed leaves at most such a sibling, which the next write to the same place removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from textenv.errors import DiskError, TextenvError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, writer: Callable[[Path], object]) -> None:
    """Writes one file; whoever looks sees the old content or the new one, never a part.

    Args:
        path: the file; missing parent folders are made.
        writer: writes the content to the path that it is given, which has the same suffix.

    Raises:
        DiskError: the disk is full or the place cannot be written to; what was there stays.
    """
    path = Path(os.path.abspath(path))  # "." has no name of its own to put a sibling beside.
    with explained(path), _temporary(path) as temporary:
        writer(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which becomes `path` when the block ends without an exception.

    A folder that is there already is replaced. (Between the two renames that this takes it lies
    beside `path` under a hidden name; a kill just then loses nothing, but leaves it there.)

    Raises:
        DiskError: the disk is full or the place cannot be written to; what was there stays.
    """
    path = Path(os.path.abspath(path))  # "." has no name of its own to put a sibling beside.
    with explained(path), _temporary(path) as temporary:
        if path.exists() and not path.is_dir():
            raise DiskError(f"cannot write the folder {path}: a file is in the way. Move it, or choose another place.")
        temporary.mkdir()
        yield temporary
        for entry in (*temporary.rglob("*"), temporary):
            _flush(entry)
        if path.exists():
            before = path.with_name(f".{path.name}.{os.getpid()}.before")
            os.rename(path, before)
            os.rename(temporary, path)
            shutil.rmtree(before)
        else:
            os.rename(temporary, path)
        _flush(path.parent)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A free hidden name beside `path`; what is left under it at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        owner = left.name.removesuffix(f".tmp{path.suffix}").rpartition(".")[2]
        if owner.isdigit() and not _alive(int(owner)):
            _remove(left)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
    finally:
        _remove(temporary)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write `path` into a message that says what to do.

    Raises:
        DiskError: the disk is full or the place cannot be written to.
    """
    try:
        yield
    except TextenvError:
        raise
    except Exception as error:  # Of any library: what the system said is looked for behind it.
        reason = _errno(error)
        if reason is None:
            raise
        place = getattr(error, "filename", None)
        where = "" if place in (None, str(path)) else f" ({place})"
        mend = "Free some space." if reason in _FULL else "Choose a place that you may write to."
        raise DiskError(
            f"cannot write {path}: {os.strerror(reason)}{where}. What was written before is kept. {mend}"
        ) from error


def _errno(error: Exception) -> int | None:
    """The system's number for what went wrong; the writers of tensors give it in the text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    return next((number for number in _FULL if os.strerror(number) in text), None)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
