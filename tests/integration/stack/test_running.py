"""The whole stack, as `perennial up` leaves it."""

from __future__ import annotations

import json
import stat

import httpx
import psutil
import psycopg
import pytest

from tests.integration.stack.watch import Watch
from tests.stack_fixture import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

SERVICES = {"postgres", "mlflow", "data-plane", "airflow-api", "scheduler", "dag-processor", "triggerer"}


def test_status_as_data(stack: Stack) -> None:
    found = json.loads(stack.perennial("status", "--json").stdout)
    assert found["phase"] == "running"
    assert found["supervised"] is True
    parts = {part["name"]: part for part in found["parts"]}
    assert {name for name, part in parts.items() if part["state"] == "running"} == SERVICES
    for name in SERVICES:
        part = parts[name]
        assert psutil.Process(part["pid"]).is_running()
        assert part["uptime_seconds"] > 0
        assert part["memory_bytes"] > 10_000_000
    ports = {name: part["port"] for name, part in parts.items() if part["port"]}
    assert set(ports) == {"postgres", "mlflow", "data-plane", "airflow-api"}
    assert found["memory_bytes"] < 3_000_000_000


@pytest.mark.req("J107", "D3")
def test_doctor_finds_nothing_wrong(stack: Stack) -> None:
    def findings() -> dict[str, dict[str, str]]:
        return {row["check"]: row for row in json.loads(stack.perennial("doctor", "--json", check=False).stdout)}

    wait_until(
        "the DAGs",
        lambda: "training of scout" in findings() and "no import error" in findings()["DAGs"]["detail"],
        seconds=90,
    )
    found = findings()
    assert [row for row in found.values() if row["verdict"] == "wrong"] == []
    assert found["warm workers"]["verdict"] == "ok", found["warm workers"]
    assert not found["DAGs"]["detail"].startswith("0 ")
    assert stack.perennial("doctor").returncode == 0


def test_every_address_answers(stack: Stack) -> None:
    where = stack.connections
    assert httpx.get(f"{where['mlflow_url']}/health").status_code == 200
    assert httpx.get(f"{where['data_plane_url']}/healthz").status_code == 200
    assert "<html" in httpx.get(where["airflow_url"], follow_redirects=True).text.lower()
    with stack.airflow("machine") as airflow:
        assert airflow.get("/api/v2/version").json()["version"].startswith("3.3")
    for role in ("app", "admit", "owner"):
        with psycopg.connect(stack.url(role)) as link:
            assert link.execute("SELECT current_user").fetchone() == (f"perennial_{role}",)


def test_each_part_keeps_to_its_own_database(stack: Stack) -> None:
    for database in ("airflow", "mlflow"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(stack.url("app").rsplit("/", 1)[0] + f"/{database}")
    assert "sqlite" not in (stack.home / "logs" / "mlflow.log").read_text()
    assert not list((stack.home).rglob("*.db"))


def test_settings_find_the_stack(stack: Stack) -> None:
    settings = stack.settings()
    assert settings.database_url.get_secret_value() == stack.url("app")
    assert settings.verify_key_file.read_text().startswith("-----BEGIN PUBLIC KEY")
    assert settings.fleet_folder == stack.fleet
    assert settings.inbox.is_dir()


@pytest.mark.req("J100")
def test_secrets_are_private_and_on_no_command_line(stack: Stack) -> None:
    for name in ("secrets.json", "connections.json", "airflow/passwords.json", "keys/signing.pem", "state.json"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    passwords = set(stack.logins.values()) | {
        stack.connections[f"{role}database_url"].split(":")[2].split("@")[0] for role in ("", "admit_", "owner_")
    }
    watch = Watch(stack)
    lines = [" ".join(psutil.Process(pid).cmdline()) for pid in watch.look()]
    assert len(lines) > 20
    assert not [line for line in lines for password in passwords if password in line]
    logs = "".join(path.read_text(errors="replace") for path in (stack.home / "logs").glob("*.log"))
    assert not [password for password in passwords if password in logs]
