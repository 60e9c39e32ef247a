"""Logs of the parts: appended by their writers, rotated by the supervisor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_LARGEST = 10_000_000
_GENERATIONS = 3


def rotate(folder: Path, *, largest: int = _LARGEST) -> list[str]:
    """Copy a log that grew too large to ``.1`` and empty it; older ones move on, the oldest goes. Returns what could not be rotated and
    why (a full disk): that log and its older ones stay as they are until the next call.

    The writers hold the file open for appending, so it is emptied in place and not renamed: what is written between
    copy and cut (microseconds) is lost from the log, and no writer has to be told.
    """
    failed = []
    for log in sorted(folder.glob("*.log")):
        try:
            if log.stat().st_size > largest:
                _rotate(log)
        except OSError as error:
            failed.append(f"{log.name}: {error.strerror or type(error).__name__}")
    return failed


def _rotate(log: Path) -> None:
    copy = log.with_name(f".{log.name}.copy")
    try:
        shutil.copyfile(log, copy)
        copy.chmod(0o600)
        for number in range(_GENERATIONS - 1, 0, -1):
            older = log.with_name(f"{log.name}.{number}")
            if older.exists():
                older.replace(log.with_name(f"{log.name}.{number + 1}"))
        copy.replace(log.with_name(f"{log.name}.1"))
    except OSError:
        copy.unlink(missing_ok=True)
        raise
    os.truncate(log, 0)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 20_000))
            return b"\n".join(stream.read().splitlines()[-lines:]).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
