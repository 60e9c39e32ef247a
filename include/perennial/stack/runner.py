"""One part under supervision: start it in a session of its own, judge its health, end it, start it again."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path

from perennial.stack import processes
from perennial.stack.health import Health
from perennial.stack.parts import Part
from perennial.stack.state import PartRecord, PartState

logger = logging.getLogger(__name__)

# The session must be on record before anything runs in it. So the shell waits for a word on its standard input; when the
# supervisor dies before it says one, the end of the input ends the shell too.
_GATE = """
read -r word || exit 0
exec </dev/null
if [ -n "$PERENNIAL_BEFORE" ]; then sh -c "$PERENNIAL_BEFORE" || exit 75; fi
unset PERENNIAL_BEFORE
exec "$@"
"""

_LOOK_WHILE_STARTING = 0.2
_LOOK_WHILE_RUNNING = 4.0
_CALM = 60.0  # seconds of health after which the next restart is immediate again
_LONGEST_BACKOFF = 30.0
_MOST_DOUBLINGS = 4


def tolerated(seconds: float, failures: int) -> float:
    """Seconds of bad looks before a running part is replaced: twice as long after each replacement that brought no calm.

    A machine that is too busy for a part to answer in time is too busy to start it anew, and would do so for ever.

    >>> [tolerated(10.0, failures) for failures in (0, 1, 2, 9)]
    [10.0, 20.0, 40.0, 160.0]
    """
    return seconds * 2.0 ** min(failures, _MOST_DOUBLINGS)


class Runner:
    """The state machine of one part; ``tick`` moves it and never waits long. Runs in the supervisor's only loop thread."""

    def __init__(
        self, part: Part, record: PartRecord, *, log: Path, folder: Path | None, keep: Callable[[PartRecord], None],
        looks: Executor, reap: Callable[[], None],
    ) -> None:  # fmt: skip
        self.part, self.record = part, record
        self._log, self._folder, self._keep, self._looks, self._reap = log, folder, keep, looks, reap
        self._process: subprocess.Popen[bytes] | None = None
        self._look: Future[Health] | None = None
        self._next_look = self._next_start = 0.0
        self._began = self._began_wall = 0.0
        self._well_since: float | None = None
        self._bad_since: float | None = None
        self._must_answer_by: float | None = None
        self._failures = 0
        record.port = part.port
        if part.skip:
            record.state, record.detail = PartState.SKIPPED, part.skip

    @property
    def well(self) -> bool:
        """True when what needs this part may start."""
        return self.record.state in (PartState.RUNNING, PartState.DONE)

    @property
    def failures(self) -> int:
        """Failed starts in a row."""
        return self._failures

    def owns(self, pid: int) -> bool:
        return self._process is not None and self._process.pid == pid

    def tick(self, ready: Callable[[Part], bool]) -> None:
        """Start what may start, collect a finished look, order the next one, give up on a part that stays bad."""
        now = time.monotonic()
        if self.record.state in (PartState.WAITING, PartState.BACKING_OFF):
            if now >= self._next_start and ready(self.part):
                self._start()
        elif self.record.state in (PartState.STARTING, PartState.RUNNING) and self.part.probe is not None:
            self._collect(now)
            self._judge(now)

    def _start(self) -> None:
        """Start the part; when the machine gives no process, no memory or no room for the record, that is a failed start like any other."""
        try:
            self._launch()
        except OSError as error:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            self.fail(f"could not be started: {error.strerror or type(error).__name__}")

    def _launch(self) -> None:
        self.clear()
        environment = dict(self.part.environment)
        if self.part.before_again and self.record.restarts:
            environment["PERENNIAL_BEFORE"] = shlex.join(self.part.before_again)
        with open(self._log, "ab", buffering=0) as log:
            os.fchmod(log.fileno(), 0o600)
            process = subprocess.Popen(
                ["sh", "-c", _GATE, "sh", *self.part.command], env=environment, stdin=subprocess.PIPE, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._process = process
        row = processes.look_up(process.pid)
        self.record.session, self.record.started = process.pid, row.started if row else 0
        self.record.state, self.record.detail = PartState.STARTING, ""
        self._began, self._began_wall = time.monotonic(), time.time()
        self._look, self._next_look = None, self._began
        self._well_since = self._bad_since = self._must_answer_by = None
        self._keep(self.record)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed like any other
            process.stdin.write(b"go\n")
            process.stdin.close()
        logger.info("%s started as %s", self.part.name, process.pid)

    def _collect(self, now: float) -> None:
        if self._look is None:
            if now >= self._next_look and self.part.probe is not None:
                self._look = self._looks.submit(self.part.probe.look, self._began_wall)
            return
        if not self._look.done():
            return
        health, self._look = self._look.result(), None
        starting = self.record.state is PartState.STARTING
        self._next_look = now + (_LOOK_WHILE_STARTING if starting or self._must_answer_by else _LOOK_WHILE_RUNNING)
        if health is Health.GOOD:
            self._mark_well(now)
        elif health is Health.UNKNOWN:
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = now

    def _mark_well(self, now: float) -> None:
        self._bad_since = self._must_answer_by = None
        if self.record.state is PartState.STARTING:
            self.record.state, self.record.since = PartState.RUNNING, time.time()
            self.record.seconds = round(now - self._began, 2)
            self._well_since = now
            logger.info("%s is well after %.1f s", self.part.name, self.record.seconds)
        if self._well_since is not None and now - self._well_since > _CALM:
            self._failures = 0

    def _judge(self, now: float) -> None:
        if self.record.state is PartState.STARTING:
            if now - self._began > self.part.patience:
                self.fail(f"was not well within {self.part.patience:.0f} s")
        elif self._must_answer_by is not None:
            if now > self._must_answer_by:
                self.fail("gave no sign of life after PostgreSQL came back")
        elif self._bad_since is not None:
            most = tolerated(self.part.tolerance, self._failures)
            if now - self._bad_since > most:
                self.fail(f"was not well for {most:.0f} s")

    def expect_sign_of_life(self, seconds: float) -> None:
        """From now on only signs younger than this call count, and one must come in time.

        For what stands on PostgreSQL when that had to be restarted: Airflow's scheduler stops scheduling at once but
        waits for its running tasks, minutes perhaps, before it exits.
        """
        if self.record.state is PartState.RUNNING:
            self._began_wall = time.time()
            self._must_answer_by = time.monotonic() + seconds
            self._next_look, self._look = 0.0, None

    def exited(self, status: int) -> None:
        """The leader ended; called by whoever reaps."""
        assert self._process is not None
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        self._process = None
        if self.record.state not in (PartState.STARTING, PartState.RUNNING):
            return
        if self.part.once and code == 0:
            self.record.state, self.record.since = PartState.DONE, time.time()
            self.record.seconds = round(time.monotonic() - self._began, 2)
            self._failures = 0
            self.clear()
        else:
            self.fail(f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}")

    def fail(self, why: str) -> None:
        """Record why, end what is left of its session, and try again later; each time in a row a little later."""
        logger.warning("%s %s; its session is ended and it starts again", self.part.name, why)
        self._failures += 1
        self.record.state, self.record.detail = PartState.BACKING_OFF, why
        self.record.restarts += 1
        self._look = None
        self.clear()
        self._next_start = time.monotonic() + min(_LONGEST_BACKOFF, 0.25 * 2 ** min(self._failures, 8))

    def again(self, part: Part) -> None:
        """Take a part in that was left out."""
        self.part = part
        if not part.skip and self.record.state is PartState.SKIPPED:
            self.record.state, self.record.detail = PartState.WAITING, ""

    def ask_to_stop(self) -> None:
        """The polite signal, to the leader alone: it ends its own children in its own order."""
        if self._process is not None:
            processes.send([self._process.pid], self.part.stop)

    @property
    def leader_runs(self) -> bool:
        return self._process is not None

    def end_now(self) -> None:
        """kill -9 for the whole session of a part that did not end when it was asked to."""
        if self.leader_runs:
            logger.warning("%s did not end within %.0f s; killed", self.part.name, self.part.grace)
        self.clear()

    def remains(self) -> set[int]:
        """Living processes of this part's last session, and of a server that works in its folder."""
        rows = processes.snapshot()
        found = processes.members(rows, [self.record.session]) if self.record.session else set()
        if self._folder is not None:
            found |= processes.working_in(rows, self._folder)
        return found

    def clear(self) -> None:
        """kill -9 for everything that is left of the last session, reaped before this returns."""
        left = processes.end_all(self.remains, seconds=10.0, reap=self._reap)
        if left:
            logger.error("%s: processes %s do not end", self.part.name, sorted(left))
