"""docker-compose.yaml says what the embedded stack does: the same parts, no secret in it, nothing beyond loopback."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
TEXT = (REPOSITORY / "docker-compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]


@pytest.mark.req("D2")
def test_every_part_of_the_embedded_stack_is_there() -> None:
    assert set(SERVICES) == {
        "postgres", "setup", "mlflow", "airflow-api", "pools", "scheduler", "dag-processor", "triggerer", "data-plane",
    }  # fmt: skip


def test_no_secret_is_written_down_and_every_one_is_required() -> None:
    used = re.findall(r"\$\{(\w+)(:\?)?", re.sub(r"(?m)^\s*#.*", "", TEXT))
    assert len(used) > 10
    assert [name for name, required in used if not required] == []
    assert not re.findall(r"(?i)password: (?!\$)\S", TEXT)


def test_ports_are_published_on_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_modules_that_containers_run_exist() -> None:
    words = " ".join(str(service.get("command", "")) for service in SERVICES.values())
    modules = set(re.findall(r"perennial\.[\w.]+", words))
    assert "perennial.stack.pools" in modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_only_workers_may_read_originals_and_sign() -> None:
    holders = {
        name
        for name, service in SERVICES.items()
        for key in service.get("environment", {})
        if key in ("PERENNIAL_ADMIT_DATABASE_URL", "PERENNIAL_SIGNING_KEY_FILE")
    }
    assert holders == {"scheduler", "triggerer"}


def test_nobody_is_an_admin_without_a_login() -> None:
    for name in ("airflow-api", "scheduler"):
        assert SERVICES[name]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
