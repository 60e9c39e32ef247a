"""What the supervisor tells the rest of the world, in one file that is replaced whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from perennial.stack import processes
from perennial.stack.files import is_held, read_json, write_private
from perennial.stack.home import Home


class Phase(StrEnum):
    """Of the stack as a whole."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


class PartState(StrEnum):
    """Of one part."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"  # a step that runs once
    BACKING_OFF = "backing off"
    SKIPPED = "skipped"
    STOPPED = "stopped"


@dataclass(kw_only=True, slots=True)
class PartRecord:
    """One part, as status shows it. ``session`` is the number of its leader and of its session."""

    name: str
    state: PartState = PartState.WAITING
    session: int = 0
    started: int = 0  # clock ticks of the leader, so that a reused number is not mistaken for it
    port: int | None = None
    restarts: int = 0
    since: float = 0.0  # wall clock of the last change to running or done
    seconds: float = 0.0  # from start to healthy, last time
    detail: str = ""


@dataclass(kw_only=True, slots=True)
class StackState:
    """The whole stack. ``sessions`` holds every session that may still have members, of parts and of their predecessors."""

    boot_id: str = ""
    supervisor: int = 0
    supervisor_started: int = 0
    phase: Phase = Phase.STOPPED
    problem: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    parts: dict[str, PartRecord] = field(default_factory=dict)
    sessions: dict[int, int] = field(default_factory=dict)  # session -> clock ticks of its leader

    def write(self, home: Home) -> None:
        write_private(home.state_file, json.dumps(asdict(self)))

    def live_sessions(self) -> set[int]:
        """Recorded sessions that are still ours: this boot of the machine, and the leader's number not reused."""
        if self.boot_id != processes.boot_id():
            return set()
        return {session for session, started in self.sessions.items() if _is_ours(session, started)}


def _is_ours(session: int, started: int) -> bool:
    leader = processes.look_up(session)
    # without a leader the number cannot have been given out again while members of the session live
    return leader is None or leader.started == started


def read_state(home: Home) -> StackState:
    """What the file says; a stopped stack when there is none."""
    found = read_json(home.state_file)
    if not found:
        return StackState()
    parts = {name: PartRecord(**{**row, "state": PartState(row["state"])}) for name, row in found["parts"].items()}
    sessions = {int(session): started for session, started in found["sessions"].items()}
    return StackState(**{**found, "phase": Phase(found["phase"]), "parts": parts, "sessions": sessions})


def supervisor_runs(home: Home) -> bool:
    """True while a supervisor holds its lock; a killed one has lost it."""
    return is_held(home.supervisor_lock)
