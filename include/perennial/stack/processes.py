"""What runs on this machine, read from /proc: sessions, descendants, memory. Linux alone."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Process:
    """One row of /proc; ``started`` (clock ticks after boot) tells a process from a later one with the same number."""

    pid: int
    parent: int
    session: int
    started: int
    state: str
    threads: int

    @property
    def alive(self) -> bool:
        """False once nothing of it runs: a leader that is a zombie still holds ports and files while its threads end."""
        return self.state not in "ZX" or self.threads > 1


def boot_id() -> str:
    """Changes when the machine starts, which makes every recorded process number void."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def look_up(pid: int) -> Process | None:
    """The process of that number, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name in brackets may itself hold spaces and brackets
    fields = text[text.rindex(")") + 2 :].split()
    return Process(
        pid=pid, state=fields[0], parent=int(fields[1]), session=int(fields[3]), threads=int(fields[17]), started=int(fields[19])
    )  # fmt: skip


def snapshot() -> dict[int, Process]:
    """Every process by number."""
    rows = (look_up(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {row.pid: row for row in rows if row is not None}


def descendants(rows: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The numbers below ``roots`` in the tree of parents; the roots themselves are not in it."""
    children: dict[int, list[int]] = defaultdict(list)
    for row in rows.values():
        children[row.parent].append(row.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def members(rows: dict[int, Process], sessions: Iterable[int]) -> set[int]:
    """All living processes of the sessions, and their descendants wherever these went."""
    wanted = set(sessions)
    inside = {row.pid for row in rows.values() if row.session in wanted}
    return {pid for pid in inside | descendants(rows, inside) if rows[pid].alive}


def working_in(rows: dict[int, Process], folder: Path) -> set[int]:
    """Living processes whose working directory is ``folder``: how servers are found that outlived their parent."""
    found = set()
    for pid, row in rows.items():
        with suppress(OSError):  # gone meanwhile, or not ours to look at
            if row.alive and os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.add(pid)
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal processes; those that ended meanwhile are fine."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all(find: Callable[[], set[int]], *, seconds: float = 10.0, reap: Callable[[], None] | None = None) -> set[int]:
    """kill -9 whatever ``find`` returns until it returns nothing; returns who is left after ``seconds``.

    Repeats, because a process may fork between the look and the signal.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = find() - {os.getpid()}
        if not left or time.monotonic() > deadline:
            return left
        send(left, signal.SIGKILL)
        time.sleep(0.02)
        if reap is not None:
            reap()


def proportional_memory(pids: Iterable[int]) -> int:
    """Summed proportional set size in bytes; where the kernel refuses it (another user's process), the resident size."""
    return sum(_memory(pid) for pid in pids)


def _memory(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        with suppress(OSError):
            return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # ended meanwhile
    return 0


def become_subreaper() -> None:
    """Make orphans below this process its own children, so that none escapes to init (PR_SET_CHILD_SUBREAPER)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
