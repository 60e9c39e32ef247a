"""Logs of the parts: appended by their writers, rotated by the supervisor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_LARGEST = 10_000_000
_GENERATIONS = 3


def rotate(folder: Path, *, largest: int = _LARGEST) -> None:
    """Copy a log that grew too large to ``.1`` and empty it; older ones move on, the oldest goes.

    The writers hold the file open for appending, so it is emptied in place and not renamed: what is written between
    copy and cut (microseconds) is lost from the log, and no writer has to be told.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size <= largest:
            continue
        for number in range(_GENERATIONS - 1, 0, -1):
            older = log.with_name(f"{log.name}.{number}")
            if older.exists():
                older.replace(log.with_name(f"{log.name}.{number + 1}"))
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        log.with_name(f"{log.name}.1").chmod(0o600)
        os.truncate(log, 0)


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 20_000))
            return b"\n".join(stream.read().splitlines()[-lines:]).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
