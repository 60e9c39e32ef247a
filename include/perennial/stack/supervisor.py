"""The detached process that owns every part: ``python -m perennial.stack.supervisor``.

It is a subreaper, so an orphan below it comes to it and not to init; each part has a session of its own, recorded before
anything runs in it. It needs the standard library alone, so that little can go wrong in it.
SIGTERM stops everything; SIGHUP looks again for parts that were left out.
"""

from __future__ import annotations

import importlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from perennial.errors import PerennialError, StackError
from perennial.stack import logs, postgres, processes
from perennial.stack.files import exclusive, read_json
from perennial.stack.home import Home
from perennial.stack.parts import Part, parts
from perennial.stack.ports import Ports, chosen_ports
from perennial.stack.runner import Runner
from perennial.stack.secrets import Secrets, read_or_make
from perennial.stack.state import PartRecord, PartState, Phase, StackState, read_state
from perennial.stack.sweep import end_leftovers

logger = logging.getLogger(__name__)

_STANDS_ON_POSTGRES = ("scheduler", "triggerer", "dag-processor")
_SIGN_OF_LIFE = 15.0  # seconds; Airflow's heartbeats come every 5


class Supervisor:
    """Runs the parts of one home until it is told to stop."""

    def __init__(self, place: Home, ports: Ports, secrets: Secrets) -> None:
        self._home, self._ports, self._secrets = place, ports, secrets
        row = processes.look_up(os.getpid())
        self._state = StackState(
            boot_id=processes.boot_id(), supervisor=os.getpid(), supervisor_started=row.started if row else 0,
            phase=Phase.STARTING, ports=ports.record(),
            # its own session too: initdb runs in it
            sessions={os.getpid(): row.started if row else 0},
        )  # fmt: skip
        self._written: str = ""
        self._troubles: dict[str, str] = {}  # what could not be written, so that each is told once
        self._looks = ThreadPoolExecutor(max_workers=4, thread_name_prefix="look")
        self._runners: dict[str, Runner] = {}
        self._stop = self._look_again = False
        self._postgres_failures = 0
        self._next_chores = 0.0

    def run(self) -> None:
        """Boot, watch, stop. Returns when every part has ended."""
        wake = self._catch_signals()
        self._save()
        try:
            if not (self._home.database / "PG_VERSION").exists():
                postgres.create(self._home, self._secrets.superuser)
            for part in parts(self._home, self._ports, self._secrets).values():
                self._add(part)
            while not self._stop:
                self._turn()
                pause = 0.5 if self._state.phase is Phase.RUNNING else 0.1
                if select.select([wake], [], [], pause)[0]:
                    os.read(wake, 4096)
        except (PerennialError, OSError) as error:
            self._state.problem = str(error)
            logger.error("%s", error)
        finally:
            self._shut_down()

    def _catch_signals(self) -> int:
        wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        return wake

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop = True
        elif number == signal.SIGHUP:
            self._look_again = True

    def _add(self, part: Part) -> None:
        record = self._state.parts.setdefault(part.name, PartRecord(name=part.name))
        self._runners[part.name] = Runner(
            part, record, log=self._home.log_of(part.name), keep=self._keep, looks=self._looks, reap=self._reap,
            folder=self._home.database if part.name == "postgres" else None,
        )  # fmt: skip

    def _turn(self) -> None:
        self._reap()
        if self._look_again:
            self._look_again = False
            importlib.invalidate_caches()
            for part in parts(self._home, self._ports, self._secrets).values():
                self._runners[part.name].again(part)
        for runner in self._runners.values():
            runner.tick(self._ready)
        self._mind_postgres()
        if self._state.phase is Phase.STARTING and all(self._settled(runner) for runner in self._runners.values()):
            self._state.phase = Phase.RUNNING
        if time.monotonic() >= self._next_chores:
            self._next_chores = time.monotonic() + 5.0
            self._note_sessions()
            self._tell("logs that are not rotated", ", ".join(logs.rotate(self._home.logs)))
        self._save()

    def _settled(self, runner: Runner) -> bool:
        return runner.well or runner.record.state is PartState.SKIPPED

    def _ready(self, part: Part) -> bool:
        # through the chain: tables that were made are of no use while their server is away
        return all(self._runners[need].well and self._ready(self._runners[need].part) for need in part.needs)

    def _mind_postgres(self) -> None:
        server = self._runners["postgres"]
        if server.well and server.record.restarts > self._postgres_failures:
            self._postgres_failures = server.record.restarts
            for name in _STANDS_ON_POSTGRES:
                self._runners[name].expect_sign_of_life(_SIGN_OF_LIFE)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for runner in self._runners.values():
                if runner.owns(pid):
                    runner.exited(status)

    def _keep(self, record: PartRecord) -> None:
        self._state.sessions[record.session] = record.started
        self._write()

    def _write(self) -> None:
        text = repr(self._state)
        if text != self._written:
            self._state.write(self._home)
            self._written = text

    def _save(self) -> None:
        """Write the state when it changed; where that fails (a full disk) the next turn tries again, and nothing is ended for it."""
        try:
            self._write()
        except OSError as error:
            self._tell("the state is not written", error.strerror or type(error).__name__)
        else:
            self._tell("the state is not written", "")

    def _tell(self, what: str, why: str) -> None:
        """Log a trouble once while it lasts, and its end."""
        if why and why != self._troubles.get(what):
            self._troubles[what] = why
            logger.error("%s: %s; tried again until it works", what, why)
        elif not why and self._troubles.pop(what, ""):
            logger.info("over: %s", what)

    def _note_sessions(self) -> None:
        """Record sessions that parts opened themselves, and forget the empty ones. PostgreSQL's are left out: one per connection."""
        rows = processes.snapshot()
        server = self._runners["postgres"].record.session
        leaders = [runner.record.session for runner in self._runners.values() if runner.leader_runs]
        below = processes.descendants(rows, [leader for leader in leaders if leader != server])
        alive = {row.session for row in rows.values() if row.alive}
        for session in {rows[pid].session for pid in below} - set(self._state.sessions):
            leader = rows.get(session)
            if leader is not None:
                self._state.sessions[session] = leader.started
        for session in set(self._state.sessions) - alive - set(leaders) - {os.getpid()}:
            del self._state.sessions[session]

    def _shut_down(self) -> None:
        logger.info("stopping")
        self._state.phase = Phase.STOPPING
        self._save()  # so that nobody takes it for running; what follows happens on a full disk too
        others = [runner for name, runner in self._runners.items() if name != "postgres"]
        self._stop_group(others)
        self._stop_group([runner for name, runner in self._runners.items() if name == "postgres"])
        self._state.sessions.pop(os.getpid(), None)
        # orphans of orphans came to this process, whatever their session
        processes.end_all(lambda: _alive_below(os.getpid()), reap=self._reap)
        left = end_leftovers(self._home, self._state, reap=self._reap)
        if left:
            self._state.problem = f"processes {sorted(left)} do not end; look at them with ps"
        logger.info("stopped")
        self._state.phase = Phase.STOPPED
        self._state.supervisor = 0
        self._save()
        self._looks.shutdown(wait=False, cancel_futures=True)

    def _stop_group(self, group: Iterable[Runner]) -> None:
        group = list(group)
        for runner in group:
            if runner.record.state is not PartState.SKIPPED:
                runner.record.state = PartState.STOPPED
            runner.ask_to_stop()
        began = time.monotonic()
        waiting = [runner for runner in group if runner.leader_runs]
        while waiting:
            self._reap()
            late = time.monotonic() - began
            waiting = [runner for runner in waiting if runner.leader_runs and late < runner.part.grace]
            time.sleep(0.02)
        for runner in group:
            runner.end_now()
        self._save()


def _alive_below(pid: int) -> set[int]:
    rows = processes.snapshot()
    return {child for child in processes.descendants(rows, [pid]) if rows[child].alive}


def main() -> int:
    """Own the home of this environment. Exit code 3 when another supervisor does."""
    place = Home(root=Path(os.environ["PERENNIAL_HOME"]))  # `perennial up` always sets it
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    place.make()
    with exclusive(place.supervisor_lock, wait=False) as mine:
        if not mine:
            logger.error("another supervisor owns %s", place.root)
            return 3
        processes.become_subreaper()
        left = end_leftovers(place, read_state(place))
        if left:
            raise StackError(f"processes {sorted(left)} of an earlier stack do not end")
        ports = chosen_ports(file=read_json(place.settings_file))
        Supervisor(place, ports, read_or_make(place)).run()
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # without the interpreter's own farewell, which waits for a health check that may be under way
    os._exit(code)
