"""`perennial models`, `verify` and `rollback` on real releases in a folder and a ledger in memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from perennial.cli import models
from perennial.errors import NotConfigured, RegistryError, UntrustedBundle
from perennial.registry.folder_store import FolderStore
from perennial.registry.manifest import Manifest
from perennial.registry.memory import MemoryLedger
from perennial.registry.release import make_release
from perennial.retention.memory import MemoryRetention
from tests.unit.registry.samples import PASSWORD, REPORT, Keys, components, manifest

T0 = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)


class Deployment:
    """Two releases of one agent, the second as champion."""

    def __init__(self, room: Path, keys: Keys) -> None:
        self.now = T0
        self.ledger = MemoryLedger(clock=lambda: self.now)
        self.store = FolderStore(room / "store")
        self.settings = SimpleNamespace(verify_key_file=keys.public)
        for number, (job, version) in enumerate((("1" * 8, "1.0.0"), ("2" * 8, "1.0.1"))):
            candidate = components(room / version / "candidate")
            job_id = f"{job}-0000-4000-8000-000000000000"

            def describe(
                name: str, order: int, candidate: Path = candidate, job_id: str = job_id, base: bool = bool(number)
            ) -> Manifest:
                return manifest(
                    candidate, version=name, order=order, job_id=job_id, base_version="1.0.0" if base else None
                )

            make_release(
                ledger=self.ledger, store=self.store, agent="scout", job_id=job_id, part="patch", describe=describe,
                tasks=candidate / "tasks", gate_report=REPORT, out=room / version / "release", key_file=keys.private,
                password=PASSWORD, tags={},
            )  # fmt: skip
            self.ledger.move_alias("scout", "champion", version, actor="perennial", reason=f"rollout {number}")
            self.now += timedelta(minutes=88)
        self.ports = SimpleNamespace(
            ledger=self.ledger, models=self.store, settings=self.settings, retention=MemoryRetention()
        )  # fmt: skip


@pytest.fixture
def deployment(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    made = Deployment(tmp_path, keys)
    monkeypatch.setattr(models, "_ports", lambda: made.ports)
    return made


def _run(*arguments: str) -> Result:
    app = typer.Typer()
    models.register(app)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "240"})


def _json(*arguments: str) -> Any:
    found = _run(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_models_lists_agents_and_releases(deployment: Deployment) -> None:
    (agent,) = _json("models")
    assert (agent["agent"], agent["champion"], agent["releases"]) == ("scout", "1.0.1", 2)
    newest, oldest = _json("models", "scout")
    assert (newest["version"], newest["alias"], newest["base"]) == ("1.0.1", "champion", "1.0.0")
    assert (oldest["version"], oldest["alias"], oldest["accuracy"]) == ("1.0.0", "", "news 90.0%")
    page = _run("models", "scout").stdout
    assert "1.0.1" in page
    assert "champion" in page
    assert "no release of nobody yet" in _run("models", "nobody").stdout


@pytest.mark.req("K3")
def test_models_says_what_served_and_who_decided(deployment: Deployment) -> None:
    (then,) = _json("models", "scout", "--at", "2026-11-21T14:30")
    assert (then["version"], then["by"], then["reason"]) == ("1.0.0", "perennial", "rollout 0")
    (before,) = _json("models", "scout", "--at", "2026-11-21T14:00+00:00")
    assert before["version"] is None
    assert [move["version"] for move in _json("models", "scout", "--moves")] == ["1.0.1", "1.0.0"]
    assert _run("models", "scout", "--at", "tea time").exit_code == 2
    assert _run("models", "--moves").exit_code == 2


@pytest.mark.req("K69")
def test_verify_says_yes_only_to_genuine_bytes(deployment: Deployment, tmp_path: Path) -> None:
    facts = _json("verify", "scout", "1.0.1")
    assert (facts["verified"], facts["examples"]) == (True, 3)
    assert "is genuine" in _run("verify", "scout", "1.0.1").stdout
    (tmp_path / "store/scout/1.0.1/bundle/tasks/news/head.safetensors").write_bytes(b"evil")
    refused = _run("verify", "scout", "1.0.1")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, UntrustedBundle)
    assert isinstance(_run("verify", "scout", "7.0.0").exception, RegistryError)
    deployment.settings.verify_key_file = None
    assert isinstance(_run("verify", "scout", "1.0.0").exception, NotConfigured)


@pytest.mark.req("J108")
def test_rollback_asks_for_a_reason_and_passes_it_on(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def rollback_agent(ports: object, agent: str, **given: Any) -> dict[str, Any]:
        calls.append({"agent": agent, **given})
        return {"agent": agent, "from": "1.0.1", "to": "1.0.0"}

    monkeypatch.setattr("perennial.flows.rollback.rollback_agent", rollback_agent)
    assert _run("rollback", "scout").exit_code == 2
    done = _run("rollback", "scout", "--reason", "wrong about sports", "--actor", "editor")
    assert "from 1.0.1 to 1.0.0" in done.stdout
    assert calls == [{"agent": "scout", "actor": "editor", "reason": "wrong about sports", "version": None}]
