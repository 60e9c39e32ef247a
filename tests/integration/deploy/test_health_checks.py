"""The health check of every container, run against the part that it checks: green while it runs, red once it is killed.

The parts of docker-compose.yaml start here as their containers start them, on ports that are free. MinIO has no server here, and
the Celery workers no library (benchmarks/bench_plain_airflow.py --celery has them); docs/deploy.md says so.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.bridge.airflow_stack import ROOT, Stack, _kill_session, free_port
from tests.postgres_fixture import Database, Server, _bin

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]


def check_of(service: str, port: int | None = None, **environment: str) -> Callable[[], bool]:
    """The service's health check as a command here: its own words, with this test's port and this interpreter."""
    kind, *words = SERVICES[service]["healthcheck"]["test"]
    if port is not None:
        words = [re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", word) for word in words]
    command = ["sh", "-c", words[0].replace("$$", "$")] if kind == "CMD-SHELL" else words
    command[0] = sys.executable if command[0] == "python" else command[0]
    known = {**os.environ, "PYTHONPATH": str(ROOT / "include"), **environment}
    return lambda: subprocess.run(command, env=known, capture_output=True, check=False, timeout=60).returncode == 0


def until(condition: Callable[[], bool], seconds: float, process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "the part ended"
        assert time.monotonic() < deadline, "the check did not turn in time"
        time.sleep(0.2)


@pytest.mark.req("M60")
@pytest.mark.parametrize("service", ["ingest", "gateway"])
def test_a_half_of_the_data_plane(service: str, database: Database, tmp_path: Path) -> None:
    import httpx

    port = free_port()
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "include"), "PERENNIAL_HOME": str(tmp_path),
        "PERENNIAL_DATABASE_URL": database.app, "PERENNIAL_DATA_PLANE_PORT": str(port),
        "PERENNIAL_DATA_PLANE_SERVES": SERVICES[service]["environment"]["PERENNIAL_DATA_PLANE_SERVES"],
    }  # fmt: skip
    command = [sys.executable, *SERVICES[service]["command"][1:]]
    check = check_of(service, port)
    assert not check()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        until(check, 120, process)
        base = f"http://127.0.0.1:{port}"
        found = {path: httpx.post(base + path, json={}).status_code for path in ("/v1/examples", "/v1/predict")}
        other = "/v1/predict" if service == "ingest" else "/v1/examples"
        assert {path for path, status in found.items() if status == 404} == {other}
    finally:
        process.kill()
        process.wait()
    assert not check()


@pytest.mark.req("M60")
def test_postgres(postgres_server: Server) -> None:
    check = check_of(
        "postgres", PATH=f"{_bin('pg_isready').parent}:{os.environ['PATH']}", PGPORT=str(postgres_server.port)
    )
    assert check()
    postgres_server.kill()
    try:
        assert not check()
    finally:
        postgres_server.start()
    assert check()


@pytest.mark.req("M60", "M62")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on this machine")
def test_redis_and_its_password(tmp_path: Path) -> None:
    port, secret = free_port(), secrets.token_hex(8)
    program, flag, script = SERVICES["redis"]["command"]
    # the container's own words; its port and folder are this test's
    script = script.replace("$$", "$").replace("dir /data", f"dir {tmp_path}\\nport {port}\\nbind 127.0.0.1")
    script = script.replace("/tmp/redis.conf", str(tmp_path / "redis.conf"))
    process = subprocess.Popen(
        [program, flag, script],
        env={**os.environ, "REDISCLI_AUTH": secret},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # the check asks on Redis' own port in its container
        kind, words = SERVICES["redis"]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        command = words.replace("redis-cli", f"redis-cli -p {port}")

        def check(password: str = secret) -> bool:
            known = {**os.environ, "REDISCLI_AUTH": password}
            return subprocess.run(["sh", "-c", command], env=known, capture_output=True, check=False).returncode == 0

        until(check, 20, process)
        assert not check("another password")
        assert secret not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.kill()
        process.wait()
    assert not check()


@pytest.fixture
def airflow(postgres_server: Server, tmp_path: Path) -> Any:
    import psycopg

    name = "airflow_" + secrets.token_hex(4)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    stack = Stack(tmp_path / "home", postgres_server.url(name), postgres_server.url(name))
    stack.home.mkdir()
    try:
        stack.start("desk", pools={"default_pool": 128})
        yield stack
    finally:
        stack.stop()


@pytest.mark.stack
@pytest.mark.req("M60", "D8")
def test_an_airflow_without_our_pools_and_its_parts(airflow: Stack) -> None:
    from perennial.settings import Settings
    from perennial.stack import airflow_settings
    from perennial.stack.airflow_api import AirflowApi
    from perennial.stack.airflow_settings import Outcome

    # the plugin's listener made them when the scheduler started
    pools = {one["name"]: one["slots"] for one in airflow.call("GET", "/api/v2/pools")["pools"]}
    assert pools == {"default_pool": 128, "gpu": 2, "cpu": 4}

    target = AirflowApi(
        Settings(airflow_url=f"http://127.0.0.1:{airflow.port}", airflow_password="machine-password")  # type: ignore[arg-type]
    )
    file = airflow.home / "airflow_settings.yaml"
    file.write_text(
        "airflow:\n  pools:\n  - {pool_name: gpu, pool_slot: 3, pool_description: one}\n  connections:\n"
        "  - {conn_id: s, conn_uri: 'postgres://u:${SECRET}@h:5/d?sslmode=require'}\n"
        "  variables:\n  - {variable_name: desks, variable_value: [sport]}\n"
    )
    entries = airflow_settings.read(file, {"SECRET": "a/b"})
    first = [outcome for _, outcome in airflow_settings.apply(entries, target)]
    again = [outcome for _, outcome in airflow_settings.apply(entries, target)]
    assert first == [Outcome.CHANGED, Outcome.MADE, Outcome.MADE]
    assert again == [Outcome.SAME, Outcome.WRITTEN, Outcome.SAME]
    found = airflow.call("GET", "/api/v2/connections/s")
    assert (found["host"], found["login"], found["schema"], found["port"]) == ("h", "u", "d", 5)

    url = {"PERENNIAL_AIRFLOW_URL": f"http://127.0.0.1:{airflow.port}"}
    checks = {
        "airflow-api": check_of("airflow-api", airflow.port),
        **{name: check_of(name, **url) for name in ("scheduler", "dag-processor", "triggerer")},
    }
    for name, check in checks.items():
        until(check, 60)
        print(name, "is green")
    for name in ("dag-processor", "scheduler", "triggerer"):
        _kill_session(airflow.processes[name].pid)
    for name in ("dag-processor", "scheduler", "triggerer"):
        until(lambda name=name: not checks[name](), 60)  # type: ignore[misc]
        print(name, "is red")
    assert checks["airflow-api"]()
    os.killpg(airflow.processes["api"].pid, signal.SIGKILL)
    until(lambda: not checks["airflow-api"](), 20)


@pytest.mark.stack
@pytest.mark.req("M60")
def test_mlflow(tmp_path: Path) -> None:
    port = free_port()
    words = [
        str(port) if word == "5500" else "127.0.0.1" if word == "0.0.0.0" else word
        for word in SERVICES["mlflow"]["command"]
    ]
    environment = {
        **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "files"),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd=tmp_path,
    )  # fmt: skip
    check = check_of("mlflow", port)
    try:
        until(check, 120, process)
    finally:
        _kill_session(process.pid)
        process.wait()
    assert not check()
