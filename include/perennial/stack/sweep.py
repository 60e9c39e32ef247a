"""End whatever an earlier stack left behind, without asking it: its supervisor may have been killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from perennial.stack import processes
from perennial.stack.home import Home
from perennial.stack.state import StackState


def leftovers(home: Home, state: StackState) -> set[int]:
    """Living processes of recorded sessions, below them, and PostgreSQL servers that work in this home.

    By session and not by name or environment: Airflow's processes rename themselves, which also wipes their
    environment in /proc; PostgreSQL gives each connection a session of its own, but they all work in its data folder.
    """
    rows = processes.snapshot()
    return processes.members(rows, state.live_sessions()) | processes.working_in(rows, home.database)


def end_leftovers(
    home: Home, state: StackState, *, reap: Callable[[], None] | None = None, seconds: float = 15.0
) -> set[int]:
    """End them: PostgreSQL is asked for a fast shutdown first, everything else gets kill -9. Returns who is left."""
    servers = _servers(home)
    if servers:
        processes.end_all(lambda: leftovers(home, state) - _servers(home), seconds=seconds, reap=reap)
        _fast_shutdown(home, seconds=8.0, reap=reap)
    return processes.end_all(lambda: leftovers(home, state), seconds=seconds, reap=reap)


def _servers(home: Home) -> set[int]:
    return processes.working_in(processes.snapshot(), home.database)


def _fast_shutdown(home: Home, *, seconds: float, reap: Callable[[], None] | None) -> None:
    rows = processes.snapshot()
    servers = _servers(home)
    heads = {pid for pid in servers if rows[pid].parent not in servers} if servers <= set(rows) else set()
    # backends without a head (it was killed) would take the signal for "cancel the query"
    heads = {pid for pid in heads if processes.descendants(rows, [pid])}
    processes.send(heads, signal.SIGINT)
    deadline = time.monotonic() + (seconds if heads else 0.0)
    while time.monotonic() < deadline and _servers(home) & heads:
        time.sleep(0.05)
        if reap is not None:
            reap()
