"""Small files that are never seen half-written, and locks that die with their holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; mode 0600 from its first byte on."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # a full disk gets back what little it took
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is no file. A damaged file is a StackError that names it."""
    from perennial.settings import read_object

    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


@contextmanager
def exclusive(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of ``path`` for the block; yields False at once when ``wait`` is off and another process holds it.

    The kernel drops the lock with its holder, so a killed process never leaves one behind. The descriptor is not
    inherited: children do not keep it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """True while another process holds the lock."""
    if not path.exists():
        return False
    with exclusive(path, wait=False) as free:
        return not free
