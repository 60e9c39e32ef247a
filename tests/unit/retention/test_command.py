"""`perennial retention` and its holds, on a deployment of twins."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from perennial.cli import retention
from perennial.errors import RegistryError, StoreUnavailable
from tests.unit.retention.test_flow import Deployment, deployment

__all__ = ["deployment"]


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command("other")(lambda: None)
    retention.register(app)
    return CliRunner().invoke(app, ["retention", *arguments], env={"COLUMNS": "240"})


@pytest.fixture(autouse=True)
def here(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_ports", lambda: deployment.ports)


def test_a_dry_run_lists_and_a_run_removes(deployment: Deployment) -> None:
    planned = json.loads(run("--dry-run", "--json").stdout)
    assert len(deployment.there()) == 8
    page = run()
    assert page.exit_code == 0, page.output
    assert "versions: scout 1.0.0\n" in page.stdout
    assert "removed 4 versions" in page.stdout
    assert "4 versions stay" in page.stdout
    names = {part["part"]: part["names"] for part in planned["parts"]}
    assert names["versions"] == [f"scout 1.0.{number}" for number in range(4)]
    assert deployment.there() == ["1.0.4", "1.0.5", "1.0.6", "1.0.7"]
    assert "nothing was old enough to go" in run().stdout


def test_a_hold_is_a_decision_with_a_name_and_a_reason(deployment: Deployment) -> None:
    assert run("hold", "scout", "1.0.0").exit_code != 0  # no reason
    assert "scout 1.0.0 is held" in run("hold", "scout", "1.0.0", "--reason", "audit", "--actor", "auditor").stdout
    assert "already" in run("hold", "scout", "1.0.0", "--reason", "audit", "--actor", "auditor").stdout
    assert "by auditor: audit" in run("holds", "scout").stdout
    run()
    assert "1.0.0" in deployment.there()
    assert "is not held" in run("release", "scout", "1.0.0", "--reason", "closed", "--actor", "auditor").stdout
    assert "no version of scout is held" in run("holds", "scout").stdout
    actions = [(entry.action, entry.actor) for entry in deployment.audit.entries() if entry.actor == "auditor"]
    assert actions == [("retention_release", "auditor"), ("retention_hold", "auditor")]
    assert isinstance(run("hold", "scout", "1.0.1", "--reason", "late").exception, RegistryError)


def test_a_part_that_fails_does_not_stop_the_others(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise StoreUnavailable("Airflow is away")

    monkeypatch.setattr(deployment.runs, "old", away)
    done = run()
    assert done.exit_code == 1
    assert "failed, run it again: airflow: StoreUnavailable: Airflow is away" in done.output
    assert len(deployment.there()) == 4
