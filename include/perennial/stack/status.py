"""What runs, where, since when and with how much memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from perennial.stack import processes
from perennial.stack.home import Home
from perennial.stack.state import PartRecord, PartState, Phase, read_state, supervisor_runs


@dataclass(frozen=True, kw_only=True, slots=True)
class PartStatus:
    """One part; memory is the proportional set size of all its processes, in bytes."""

    name: str
    state: str
    pid: int | None
    port: int | None
    restarts: int
    uptime_seconds: float | None
    start_seconds: float
    processes: int
    memory_bytes: int
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StackStatus:
    """The stack; ``supervised`` is False when parts run whose supervisor was killed."""

    home: str
    phase: str
    supervised: bool
    problem: str
    memory_bytes: int
    parts: tuple[PartStatus, ...]

    def record(self) -> dict[str, object]:
        return asdict(self)

    @property
    def well(self) -> bool:
        """True when every part that is not left out runs or is done."""
        return self.phase == "running" and all(part.state in ("running", "done", "skipped") for part in self.parts)


def status(place: Home) -> StackStatus:
    """Look now. Cheap: /proc and one file."""
    state = read_state(place)
    supervised = supervisor_runs(place)
    rows = processes.snapshot()
    live = state.live_sessions()
    parts = tuple(_part(place, record, rows, live) for record in state.parts.values())
    phase: Phase | str = state.phase
    if not supervised and phase is not Phase.STOPPED:
        phase = "unsupervised" if any(part.processes for part in parts) else Phase.STOPPED
    own = processes.proportional_memory([state.supervisor]) if supervised and state.supervisor else 0
    return StackStatus(
        home=str(place.root), phase=str(phase), supervised=supervised, problem=state.problem,
        memory_bytes=own + sum(part.memory_bytes for part in parts), parts=parts,
    )  # fmt: skip


def _part(place: Home, record: PartRecord, rows: dict[int, processes.Process], live: set[int]) -> PartStatus:
    pids: set[int] = processes.members(rows, {record.session} & live)
    if record.name == "postgres":
        pids |= processes.working_in(rows, place.database)
    runs = record.state is PartState.RUNNING and bool(pids)
    shown = str(record.state)
    if record.state in (PartState.RUNNING, PartState.STARTING) and not pids:
        shown = "gone"
    return PartStatus(
        name=record.name, state=shown, pid=record.session if record.session in pids else None, port=record.port,
        restarts=record.restarts, uptime_seconds=round(time.time() - record.since, 1) if runs else None,
        start_seconds=record.seconds, processes=len(pids), memory_bytes=processes.proportional_memory(pids),
        detail=record.detail,
    )  # fmt: skip
