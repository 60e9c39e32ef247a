"""Sessions, orphans and survivors, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from perennial.stack import processes
from perennial.stack.health import Health
from perennial.stack.home import Home
from perennial.stack.parts import Part
from perennial.stack.runner import Runner
from perennial.stack.state import PartRecord, PartState, Phase, StackState, read_state
from perennial.stack.sweep import end_leftovers, leftovers

# a leader, a child, and a grandchild that leaves the session
TREE = "sleep 300 & setsid sleep 301 & echo ready; wait"


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(["sh", "-c", TREE], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 30
    while not is_grown(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    yield process
    processes.end_all(
        lambda: processes.members(processes.snapshot(), [process.pid]), reap=lambda: process.poll() and None
    )
    process.wait()


def is_grown(pid: int) -> bool:
    """Whether the tree has all its members, and the grandchild its own session."""
    rows = processes.snapshot()
    found = processes.members(rows, [pid])
    return len(found) == 3 and len({rows[one].session for one in found}) == 2


def state_of(process: subprocess.Popen[str]) -> StackState:
    row = processes.look_up(process.pid)
    assert row is not None
    return StackState(boot_id=processes.boot_id(), phase=Phase.RUNNING, sessions={process.pid: row.started})


def test_members_are_the_session_and_what_left_it(leader: subprocess.Popen[str]) -> None:
    rows = processes.snapshot()
    found = processes.members(rows, [leader.pid])
    assert len(found) == 3
    assert len({rows[pid].session for pid in found}) == 2


def test_leftovers_are_ended_without_their_supervisor(leader: subprocess.Popen[str], tmp_path: Path) -> None:
    home, state = Home(root=tmp_path), state_of(leader)
    assert len(leftovers(home, state)) == 3
    assert end_leftovers(home, state, reap=lambda: leader.poll() and None) == set()
    assert leftovers(home, state) == set()


def test_a_reused_number_is_not_ours(leader: subprocess.Popen[str], tmp_path: Path) -> None:
    home, state = Home(root=tmp_path), state_of(leader)
    state.sessions = {leader.pid: state.sessions[leader.pid] - 1}
    assert leftovers(home, state) == set()


def test_another_boot_of_the_machine_voids_every_record(leader: subprocess.Popen[str], tmp_path: Path) -> None:
    home, state = Home(root=tmp_path), state_of(leader)
    state.boot_id = "another"
    assert leftovers(home, state) == set()


def test_a_server_that_works_in_the_data_folder_is_found_without_a_record(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    home.database.mkdir()
    server = subprocess.Popen(["sleep", "300"], cwd=home.database, start_new_session=True)
    try:
        assert leftovers(home, StackState()) == {server.pid}
        assert end_leftovers(home, StackState(), reap=lambda: server.poll() and None) == set()
    finally:
        server.kill()
        server.wait()


def test_state_survives_its_file(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    assert read_state(home).phase is Phase.STOPPED
    state = StackState(
        phase=Phase.RUNNING,
        parts={"mlflow": PartRecord(name="mlflow", state=PartState.BACKING_OFF, port=1)},
        sessions={7: 8},
    )
    state.write(home)
    assert read_state(home) == state


class _Probe:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.answer = Health.BAD

    def look(self, since: float) -> Health:
        return self.answer


class _Bench:
    """Drives one runner as the supervisor does."""

    def __init__(self, folder: Path, part: Part) -> None:
        self.record = PartRecord(name=part.name)
        self.kept: list[int] = []
        self.runner = Runner(
            part, self.record, log=folder / "part.log", folder=None, keep=lambda record: self.kept.append(record.session),
            looks=ThreadPoolExecutor(1), reap=self.reap,
        )  # fmt: skip

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.runner.owns(pid):
                self.runner.exited(status)

    def until(self, *states: PartState, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while self.record.state not in states:
            self.reap()
            self.runner.tick(lambda part: True)
            time.sleep(0.02)
            assert time.monotonic() < deadline, f"{self.record.state}, waited for {states}"


def _part(*command: str, **more: object) -> Part:
    return replace(Part(name="part", title="a part", command=command, environment=dict(os.environ)), **more)  # type: ignore[arg-type]


def test_a_step_is_done_once_and_its_session_is_on_record_before_it_runs(tmp_path: Path) -> None:
    bench = _Bench(tmp_path, _part("sh", "-c", "echo hello"))
    bench.until(PartState.DONE)
    assert bench.kept == [bench.record.session]
    assert (tmp_path / "part.log").read_text() == "hello\n"


def test_nothing_runs_when_the_supervisor_dies_before_it_gave_the_word(tmp_path: Path) -> None:
    from perennial.stack import runner

    mark = tmp_path / "ran"
    gate = subprocess.Popen(["sh", "-c", runner._GATE, "sh", "touch", str(mark)], stdin=subprocess.PIPE)
    gate.communicate(b"")
    assert gate.returncode == 0
    assert not mark.exists()


def test_a_second_start_runs_the_command_before_it_whose_failure_stops_the_start(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    bench = _Bench(tmp_path, _part("sh", "-c", "echo part; exit 1", before_again=("sh", "-c", "echo before")))
    bench.until(PartState.BACKING_OFF)
    assert log.read_text() == "part\n"
    bench.until(PartState.STARTING)
    bench.until(PartState.BACKING_OFF)
    assert log.read_text() == "part\nbefore\npart\n"
    refused = _Bench(tmp_path, _part("sh", "-c", "echo third; exit 1", before_again=("false",)))
    for _ in range(2):
        refused.until(PartState.STARTING)
        refused.until(PartState.BACKING_OFF)
    assert refused.record.detail == "ended with exit code 75"
    assert log.read_text().count("third") == 1


def test_a_part_that_ends_is_started_again_after_its_session_is_gone(tmp_path: Path) -> None:
    probe = _Probe()
    probe.answer = Health.GOOD
    bench = _Bench(tmp_path, _part("sh", "-c", TREE, probe=probe))
    bench.until(PartState.RUNNING)
    first = bench.record.session
    deadline = time.monotonic() + 5
    while len(bench.runner.remains()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = bench.runner.remains()
    os.kill(first, signal.SIGKILL)
    bench.until(PartState.BACKING_OFF)
    # the grandchild that left the session lost its parent before anyone looked; a subreaper would still find it
    assert [pid for pid in family if (row := processes.look_up(pid)) and row.alive and row.session == first] == []
    bench.until(PartState.RUNNING)
    assert bench.record.session != first
    assert bench.record.restarts == 1
    bench.runner.clear()
    assert bench.runner.remains() == set()
    for pid in family:
        if (row := processes.look_up(pid)) and row.alive:
            os.kill(pid, signal.SIGKILL)


def test_a_part_that_stays_unwell_is_replaced_and_one_bad_look_is_forgiven(tmp_path: Path) -> None:
    probe = _Probe()
    bench = _Bench(tmp_path, _part("sleep", "300", probe=probe, tolerance=0.5, patience=20.0))
    probe.answer = Health.GOOD
    bench.until(PartState.RUNNING)
    first = bench.record.session
    for answer, moments in ((Health.BAD, 5), (Health.GOOD, 5), (Health.UNKNOWN, 60)):
        probe.answer = answer
        for _ in range(moments):
            bench.runner._next_look = 0.0
            bench.runner.tick(lambda part: True)
            time.sleep(0.02)
    assert bench.record.session == first
    probe.answer = Health.BAD
    deadline = time.monotonic() + 10
    while bench.record.state is PartState.RUNNING:
        bench.runner._next_look = 0.0
        bench.runner.tick(lambda part: True)
        time.sleep(0.02)
        assert time.monotonic() < deadline
    assert bench.record.detail == "was not well for 0 s"
    assert processes.look_up(first) is None
    bench.runner.clear()


def test_no_sign_of_life_after_postgresql_came_back(tmp_path: Path) -> None:
    probe = _Probe()
    probe.answer = Health.GOOD
    bench = _Bench(tmp_path, _part("sleep", "300", probe=probe))
    bench.until(PartState.RUNNING)
    probe.answer = Health.BAD
    bench.runner.expect_sign_of_life(0.3)
    bench.until(PartState.BACKING_OFF)
    assert "no sign of life" in bench.record.detail
    bench.runner.clear()


def test_backoff_grows(tmp_path: Path) -> None:
    bench = _Bench(tmp_path, _part("false"))
    waits = []
    for _ in range(3):
        bench.until(PartState.BACKING_OFF)
        waits.append(bench.runner._next_start - time.monotonic())
        bench.runner._next_start = 0.0
        bench.runner.tick(lambda part: True)
    assert waits[0] < waits[1] < waits[2] <= 30
    bench.runner.clear()


def test_a_zombie_whose_threads_still_run_is_alive() -> None:
    script = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(300,)).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while (row := processes.look_up(process.pid)) is None or row.state != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert row.alive
        assert processes.members(processes.snapshot(), [process.pid]) == {process.pid}
    finally:
        process.kill()
    while process.poll() is None:
        time.sleep(0.01)
    assert processes.members(processes.snapshot(), [process.pid]) == set()


def test_proportional_memory_counts_a_process() -> None:
    assert processes.proportional_memory([os.getpid()]) > 5_000_000
    assert processes.proportional_memory([2**22 - 7]) == 0
    assert sys.platform == "linux"


def test_a_part_that_is_replaced_in_vain_is_given_longer_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.stack import runner

    monkeypatch.setattr(runner, "_LOOK_WHILE_RUNNING", 0.01)
    monkeypatch.setattr(runner, "_LONGEST_BACKOFF", 0.01)
    probe = _Probe()
    bench = _Bench(tmp_path, _part("sleep", "300", probe=probe, tolerance=0.15))
    waited = []
    for _ in range(3):
        probe.answer = Health.GOOD
        bench.until(PartState.RUNNING)
        probe.answer, began = Health.BAD, time.monotonic()
        bench.until(PartState.BACKING_OFF)
        waited.append(time.monotonic() - began)
    assert all(seconds >= least for seconds, least in zip(waited, (0.15, 0.3, 0.6), strict=True))
    monkeypatch.setattr(runner, "_CALM", 0.0)  # well for long enough: the next time counts as the first
    probe.answer = Health.GOOD
    bench.until(PartState.RUNNING)
    deadline = time.monotonic() + 5
    while bench.runner.failures:
        bench.runner.tick(lambda part: True)
        time.sleep(0.01)
        assert time.monotonic() < deadline
    bench.runner.clear()
