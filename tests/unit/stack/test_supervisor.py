"""The supervisor outlives a full disk and a machine that gives no process, and always ends what it started."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from perennial.stack import logs, processes
from perennial.stack.files import write_private
from perennial.stack.home import Home
from perennial.stack.parts import Part
from perennial.stack.runner import Runner
from perennial.stack.state import PartRecord, PartState, Phase, read_state

REPOSITORY = Path(__file__).resolve().parents[3]
# A supervisor of its own, with parts that only sleep. The name `postgres` must be among them.
SCRIPT = """
    import logging, sys
    from pathlib import Path
    from perennial.stack import supervisor
    from perennial.stack.health import Health
    from perennial.stack.home import Home
    from perennial.stack.parts import Part
    from perennial.stack.ports import Ports
    from perennial.stack.secrets import read_or_make

    class Fine:
        def look(self, since):
            return Health.GOOD

    def parts(home, ports, secrets):
        sleep = (sys.executable, "-c", "import time; time.sleep(600)")
        made = [Part(name=name, title=name, command=sleep, environment={}, probe=Fine(), grace=1.0) for name in ("postgres", "worker")]
        return {part.name: part for part in made}

    place = Home(root=Path(sys.argv[1]))
    place.make()
    place.database.mkdir()
    (place.database / "PG_VERSION").write_text("15")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    supervisor.parts = parts
    supervisor.processes.become_subreaper()
    supervisor.Supervisor(place, Ports(), read_or_make(place)).run()
"""


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


class Running:
    """The supervisor as a process, its parts by the state that it wrote."""

    def __init__(self, home: Home) -> None:
        self.home = home
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "include")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), str(home.root)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        until(lambda: read_state(home).phase is Phase.RUNNING)
        self.sessions = {name: part.session for name, part in read_state(home).parts.items()}

    def fill_disk(self, full: bool) -> None:
        """No file can be written, as on a full disk; or again it can."""
        limit = 0 if full else resource.RLIM_INFINITY
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def part_runs(self, name: str) -> bool:
        row = processes.look_up(self.sessions[name])
        return row is not None and row.alive

    def below(self) -> set[int]:
        rows = processes.snapshot()
        return {pid for pid in processes.descendants(rows, [self.process.pid]) if rows[pid].alive}

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    if not hasattr(resource, "prlimit"):
        pytest.skip("Linux alone")
    it = Running(Home(root=tmp_path / "home"))
    yield it
    for pid in {*it.below(), it.process.pid}:
        processes.send([pid], signal.SIGKILL)
    it.process.wait()
    assert it.process.stderr is not None
    it.process.stderr.close()


def test_on_a_full_disk_it_goes_on_and_starts_what_ended_once_there_is_room(running: Running) -> None:
    running.fill_disk(True)
    before = running.home.state_file.read_bytes()
    os.kill(running.sessions["worker"], signal.SIGKILL)
    until(lambda: not running.part_runs("worker"))
    time.sleep(1.5)  # several turns and tries
    assert running.process.poll() is None
    assert running.part_runs("postgres")
    assert running.home.state_file.read_bytes() == before  # whole, if old
    # the number of a session is on record before anything runs in it: without a record the part does not start
    assert running.below() == {running.sessions["postgres"]}
    running.fill_disk(False)
    until(lambda: read_state(running.home).parts["worker"].state is PartState.RUNNING)
    until(lambda: read_state(running.home).parts["worker"].session != running.sessions["worker"])
    assert [path.name for path in running.home.root.glob(".state.json*")] == []
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=30) == 0
    assert running.said().count("the state is not written: File too large") == 1  # once, not with every turn


def test_on_a_full_disk_it_stops_everything_when_it_is_told_to(running: Running) -> None:
    running.fill_disk(True)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=30) == 0
    assert not any(map(running.part_runs, running.sessions))
    assert "stopped" in running.said()


def test_a_log_that_cannot_be_copied_stays_whole_and_ends_nothing(running: Running) -> None:
    log, older = running.home.logs / "worker.log", running.home.logs / "worker.log.1"
    log.write_bytes(b"x" * 10_000_001)
    older.write_text("older")
    running.fill_disk(True)
    time.sleep(6.0)  # logs are looked at every five seconds
    assert running.process.poll() is None
    assert (log.stat().st_size, older.read_text()) == (10_000_001, "older")
    running.fill_disk(False)
    until(lambda: log.stat().st_size == 0)
    assert (older.stat().st_size, (running.home.logs / "worker.log.2").read_text()) == (10_000_001, "older")
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(timeout=30)
    assert "worker.log: File too large" in running.said()


def test_one_log_that_cannot_be_rotated_keeps_no_other_from_it(tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("x" * 10)
    (tmp_path / ".a.log.copy").mkdir()  # no file can be put there
    (tmp_path / ".a.log.copy" / "x").write_text("")
    (told,) = logs.rotate(tmp_path, largest=5)
    assert told.startswith("a.log: ")
    assert (tmp_path / "a.log").stat().st_size == 10
    assert (tmp_path / "b.log").stat().st_size == 0


def test_a_file_that_could_not_be_replaced_leaves_no_draft(tmp_path: Path) -> None:
    place = tmp_path / "state.json"
    (place / "in_the_way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"state\.json"):
        write_private(place, "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.fixture
def looks() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(max_workers=1)
    yield pool
    pool.shutdown()


def _runner(
    tmp_path: Path, looks: ThreadPoolExecutor, keep: Callable[[PartRecord], None], **environment: str
) -> Runner:
    part = Part(
        name="worker", title="worker", command=("sleep", "600"), environment={"PATH": os.environ["PATH"], **environment}
    )
    runners: list[Runner] = []

    def reap() -> None:
        for runner in runners:
            session = runner.record.session
            if session and runner.owns(session):
                pid, status = os.waitpid(session, os.WNOHANG)
                if pid:
                    runner.exited(status)

    runners.append(
        Runner(
            part, PartRecord(name="worker"), log=tmp_path / "worker.log", keep=keep, looks=looks, reap=reap, folder=None
        )
    )
    return runners[0]


def test_a_machine_that_gives_no_process_is_a_failed_start_that_is_tried_again(
    tmp_path: Path, looks: ThreadPoolExecutor
) -> None:
    # the kernel refuses: one variable may not be longer than 128 kB
    runner = _runner(tmp_path, looks, lambda record: None, LONG="x" * 200_000)
    runner.tick(lambda part: True)
    assert runner.record.state is PartState.BACKING_OFF
    assert runner.record.detail == "could not be started: Argument list too long"
    assert (runner.failures, runner.leader_runs) == (1, False)
    runner.part.environment.pop("LONG")
    until(lambda: (runner.tick(lambda part: True), runner.leader_runs)[1])
    assert runner.record.state is PartState.STARTING
    runner.clear()


def test_a_part_whose_session_cannot_be_recorded_does_not_run(tmp_path: Path, looks: ThreadPoolExecutor) -> None:
    def full(record: PartRecord) -> None:
        seen.append(record.session)
        raise OSError(28, "No space left on device")

    seen: list[int] = []
    runner = _runner(tmp_path, looks, full)
    runner.tick(lambda part: True)
    assert runner.record.detail == "could not be started: No space left on device"
    until(lambda: (runner._reap(), not runner.leader_runs)[1])  # as the supervisor does with every turn
    assert processes.look_up(seen[0]) is None  # its shell never went beyond its gate
