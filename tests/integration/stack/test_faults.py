"""The embedded stack under kill -9, at every part and in the middle of a task. Processes are counted from /proc, by
session, ancestry, command line and working directory, not by the product's own list."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.integration.stack.watch import Watch
from tests.stack_fixture import CALM, REPOSITORY, Stack, make_stack, remove, turn_to_boot, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

# A task that sleeps in a session of its own below the task's process: the worst that a task can leave behind.
SLEEPER = """
    import os, subprocess
    from airflow.sdk import dag, task

    @dag(schedule=None, is_paused_upon_creation=False, catchup=False)
    def sleeper():
        @task
        def sleep():
            with open(os.environ["SLEEPER_MARK"], "a") as mark:
                mark.write(f"{os.getpid()}\\n")
            subprocess.run(["sleep", "987"], start_new_session=True)
        sleep()

    sleeper()
"""


@pytest.fixture(scope="module")
def small() -> Iterator[Stack]:
    """A stack that may be broken: Airflow with one DAG of its own, cold workers, without MLflow and data plane."""
    stack = make_stack(PERENNIAL_WITHOUT="mlflow,data-plane", PERENNIAL_WARM_WORKERS="0", **CALM)
    project = stack.home.parent / "project"
    (project / "dags").mkdir(parents=True)
    (project / "plugins").mkdir()
    (project / "dags" / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    shutil.copy(REPOSITORY / "airflow_settings.yaml", project)
    stack.env |= {"PERENNIAL_PROJECT": str(project), "SLEEPER_MARK": str(stack.home.parent / "mark")}
    try:
        with turn_to_boot():
            stack.perennial("up")
        yield stack
    finally:
        remove(stack)


@pytest.fixture
def running(small: Stack) -> Stack:
    small.perennial("up")
    return small


def pid_of(stack: Stack, part: str) -> int:
    return int(stack.state["parts"][part]["session"])


def marks(stack: Stack) -> list[int]:
    """Process numbers of the sleeping task's attempts."""
    path = Path(stack.env["SLEEPER_MARK"])
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def start_sleeper(stack: Stack) -> int:
    """Run the DAG and wait until its task sleeps; returns the task's process number."""
    before = len(marks(stack))
    with stack.airflow() as airflow:
        wait_until("the DAG", lambda: airflow.get("/api/v2/dags/sleeper").status_code == 200, seconds=60)
        airflow.post("/api/v2/dags/sleeper/dagRuns", json={"logical_date": None}).raise_for_status()
    wait_until("the task", lambda: len(marks(stack)) > before, seconds=60)
    return marks(stack)[-1]


def finish_runs(stack: Stack) -> None:
    """Take every run of the DAG away, so that the next test starts from nothing."""
    with stack.airflow() as airflow:
        for run in airflow.get("/api/v2/dags/sleeper/dagRuns").raise_for_status().json()["dag_runs"]:
            path = f"/api/v2/dags/sleeper/dagRuns/{run['dag_run_id']}"
            airflow.patch(path, json={"state": "failed"})
            airflow.delete(path)


def well(stack: Stack) -> bool:
    return stack.perennial("status", check=False).returncode == 0


def replaced(stack: Stack, part: str, old: int) -> bool:
    """The part runs again under another number."""
    record = stack.state["parts"][part]
    return record["state"] == "running" and record["session"] != old


def test_second_up_reuses_what_runs(running: Stack) -> None:
    before = running.state
    again = running.perennial("up")
    after = running.state
    assert "was already up" in again.stdout
    assert after["supervisor"] == before["supervisor"]
    assert {name: part["session"] for name, part in after["parts"].items()} == {
        name: part["session"] for name, part in before["parts"].items()
    }
    for user, password in running.logins.items():
        assert f"{user} / {password}" in again.stdout


def test_nobody_gets_in_without_a_login(running: Stack) -> None:
    base = running.connections["airflow_url"]
    assert httpx.get(f"{base}/auth/token").status_code == 403  # 201 when everyone is an admin
    assert httpx.get(f"{base}/api/v2/pools").status_code == 401
    assert httpx.post(f"{base}/auth/token", json={"username": "admin", "password": "admin"}).status_code == 401
    port = running.state["ports"]["postgres"]
    for words in ("user=postgres", "user=postgres password=wrong", "user=perennial_app password=postgres"):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"host=127.0.0.1 port={port} dbname=perennial {words}", connect_timeout=5)
    with running.airflow("editor") as editor:
        assert editor.post("/api/v2/pools", json={"name": "mine", "slots": 1}).status_code == 403
        assert editor.get("/api/v2/dags").status_code == 200


@pytest.mark.req("D8", "J5")
def test_pools_and_durability_are_set(running: Stack) -> None:
    with running.airflow("admin") as airflow:
        pools = {row["name"]: row["slots"] for row in airflow.get("/api/v2/pools").json()["pools"]}
    assert pools["gpu"] == 2
    assert pools["cpu"] == 4
    with psycopg.connect(running.url("app")) as link:
        shown = {
            name: link.execute(f"SHOW {name}").fetchone()[0]
            for name in ("synchronous_commit", "fsync", "max_connections")
        }
    assert shown == {"synchronous_commit": "on", "fsync": "on", "max_connections": "200"}


def test_a_task_outlives_the_api_server(running: Stack) -> None:
    task = start_sleeper(running)
    old = pid_of(running, "airflow-api")
    os.kill(old, signal.SIGKILL)
    wait_until("another API server", lambda: replaced(running, "airflow-api", old), seconds=240)
    time.sleep(5)  # heartbeats go through it
    assert psutil.pid_exists(task)
    assert marks(running)[-1] == task
    finish_runs(running)
    wait_until("the end of the task", lambda: not psutil.pid_exists(task), seconds=60)


@pytest.mark.req("D10")
def test_killed_scheduler_comes_back_and_recalls_its_task(running: Stack) -> None:
    watch = Watch(running)
    task = start_sleeper(running)
    watch.look()
    old = pid_of(running, "scheduler")
    os.kill(old, signal.SIGKILL)
    wait_until("another scheduler", lambda: replaced(running, "scheduler", old), seconds=240)
    assert not psutil.pid_exists(task)
    wait_until("the task's next attempt", lambda: marks(running)[-1] != task, seconds=60)
    workers = [pid for pid in watch.look() if os.getsid(pid) == old]
    assert workers == []
    finish_runs(running)
    assert well(running)


@pytest.mark.req("J82", "J5")
def test_killed_postgresql_comes_back_with_every_commit(running: Stack) -> None:
    with psycopg.connect(running.url("owner"), autocommit=True) as link:
        link.execute("CREATE TABLE IF NOT EXISTS durable (n int)")
        link.execute("INSERT INTO durable VALUES (1), (2), (3)")
    old = {part: pid_of(running, part) for part in ("postgres", "scheduler")}
    began = time.monotonic()
    os.kill(old["postgres"], signal.SIGKILL)
    wait_until("another server", lambda: replaced(running, "postgres", old["postgres"]), seconds=30)
    with psycopg.connect(running.url("owner")) as link:
        assert link.execute("SELECT count(*) FROM durable").fetchone() == (3,)
    start_sleeper_when_possible(running)
    print(f"a task ran {time.monotonic() - began:.1f} s after kill -9 of PostgreSQL")
    wait_until("all parts", lambda: well(running), seconds=240)
    finish_runs(running)


def start_sleeper_when_possible(stack: Stack) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            start_sleeper(stack)
            return
        except (httpx.HTTPError, AssertionError):
            assert time.monotonic() < deadline, "nothing is scheduled after PostgreSQL came back"


def test_scheduler_without_heartbeat_is_replaced(running: Stack) -> None:
    old = pid_of(running, "scheduler")
    os.kill(old, signal.SIGSTOP)
    wait_until("another scheduler", lambda: replaced(running, "scheduler", old), seconds=240)
    assert not psutil.pid_exists(old)
    assert running.state["parts"]["scheduler"]["restarts"] >= 1


def test_two_ups_at_once_after_everything_was_killed_make_one_stack(running: Stack) -> None:
    watch = Watch(running)
    watch.look()
    old = running.state
    for pid in (old["supervisor"], pid_of(running, "postgres"), pid_of(running, "scheduler")):
        os.kill(pid, signal.SIGKILL)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "perennial.cli", "up"],
            env=running.env,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("was already up" in text for text in said) == [False, True]
    supervisors = [
        pid for pid in Watch(running).look() if "perennial.stack.supervisor" in psutil.Process(pid).cmdline()
    ]
    assert supervisors == [running.state["supervisor"]] != [old["supervisor"]]
    before = {part["session"] for part in old["parts"].values()} - {0}
    assert not [pid for pid in watch.survivors() if os.getsid(pid) in before]
    assert well(running)


def test_down_during_a_task_leaves_nothing_and_up_takes_the_task_again(running: Stack) -> None:
    watch = Watch(running)
    task = start_sleeper(running)
    watch.look()
    began = time.monotonic()
    running.perennial("down")
    print(f"down took {time.monotonic() - began:.1f} s")
    assert watch.survivors() == set()
    running.perennial("up", PERENNIAL_POOL_GPU="3")
    wait_until("the task's next attempt", lambda: marks(running)[-1] != task, seconds=60)
    with running.airflow("admin") as airflow:
        assert airflow.get("/api/v2/pools/gpu").json()["slots"] == 3
    finish_runs(running)


def test_down_after_the_supervisor_was_killed_during_a_task(running: Stack) -> None:
    watch = Watch(running)
    task = start_sleeper(running)
    assert {task, pid_of(running, "postgres"), pid_of(running, "scheduler")} <= watch.look()
    os.kill(running.state["supervisor"], signal.SIGKILL)
    assert "unsupervised" in running.perennial("status", check=False).stdout
    running.perennial("down")
    assert watch.survivors() == set()
    assert running.perennial("status", check=False).returncode == 1


def test_a_taken_port_is_named_and_nothing_starts() -> None:
    stack = make_stack()
    port = int(stack.env["PERENNIAL_PORT_BASE"]) + 1
    try:
        with socket.create_server(("127.0.0.1", port)):
            refused = stack.perennial("up", check=False)
        assert refused.returncode == 1
        assert f"port {port}" in refused.stderr
        assert "PERENNIAL_AIRFLOW_PORT" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert Watch(stack).look() == set()
    finally:
        remove(stack)


@pytest.mark.req("D12")
def test_it_works_without_a_network() -> None:
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine does not let us make a network namespace")
    stack = make_stack(PERENNIAL_WARM_WORKERS="0")
    script = textwrap.dedent("""
        import fcntl, socket, struct, subprocess, sys
        link = socket.socket()
        fcntl.ioctl(link, 0x8914, struct.pack("16sh", b"lo", 0x49))  # SIOCSIFFLAGS: up
        sys.exit(subprocess.call([sys.executable, "-m", "perennial.cli", "up"])
                 or subprocess.call([sys.executable, "-m", "perennial.cli", "down"]))
    """)
    try:
        with turn_to_boot():
            done = subprocess.run(
                ["unshare", "-n", sys.executable, "-c", script], env=stack.env, cwd=REPOSITORY, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        remove(stack)
