"""What becomes a folder in one rename: made beside it, by one process at a time, and gone again whatever ends that process."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn
from uuid import uuid4

from perennial.errors import StackError
from perennial.stack.home import Home
from perennial.stack.state import StackState
from perennial.stack.sweep import end_leftovers

_ENDS = (signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal is gone


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A path ``.NAME.<hex>`` beside ``target``, which the block makes, fills and renames; what is there at the end of the block is removed.

    What a run left that was killed with -9 is removed first, PostgreSQL servers in it are ended. SIGTERM and SIGHUP end the block like an
    error. StackError when another process is at it, or what was left cannot be removed.
    """
    with _signals_as_errors(), _alone(target):
        left = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}")
        for old in [path for path in target.parent.iterdir() if left.fullmatch(path.name)]:
            if not _remove(old):
                raise StackError(f"{old}, which a killed run left, cannot be removed; look at it, and remove it")
        draft = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            yield draft
        finally:
            _remove(draft)


def _remove(draft: Path) -> bool:
    for _ in range(3):  # a server that was about to start may write once more
        if not draft.exists():
            break
        end_leftovers(Home(root=draft), StackState())
        shutil.rmtree(draft, ignore_errors=True)
    return not draft.exists()


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the target's lock, a file beside it that goes at the end. The kernel drops it with its holder."""
    path = target.with_name(f".{target.name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its holder may just have ended, and taken the file with it
            mine = os.path.samestat(path.stat(), os.fstat(descriptor))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise StackError(f"another backup or restore is at work on {target}; wait for its end")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def _signals_as_errors() -> Iterator[None]:
    """The first signal raises SystemExit, so that every ``finally`` runs; further ones do not disturb those."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody set them
        yield
        return
    # ignored ones stay so: that is what nohup is for
    before = {one: signal.getsignal(one) for one in _ENDS if signal.getsignal(one) not in (signal.SIG_IGN, None)}
    try:
        for one in before:
            signal.signal(one, end)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
