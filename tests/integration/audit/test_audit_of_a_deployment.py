"""The command on a real deployment: sealed and signed, tampered with by a superuser, cut by a restore."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from perennial.cli import build
from perennial.registry.keys import make_key_pair
from perennial.wiring import ports
from tests.postgres_fixture import Database

pytestmark = pytest.mark.req("K70")


def run(*words: str) -> Result:
    return CliRunner().invoke(build(), ["audit", *words])


def test_from_the_first_decision_to_a_restored_backup(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key_pair(tmp_path / "signing.pem", tmp_path / "signing.pub", "secret words")
    for name, value in {
        "HOME": tmp_path, "DATABASE_URL": database.app, "SIGNING_KEY_FILE": tmp_path / "signing.pem",
        "SIGNING_KEY_PASSWORD": "secret words", "VERIFY_KEY_FILE": tmp_path / "signing.pub",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
    log = ports().audit
    for number in range(6):
        log.append(actor="editor", action="approved", agent="scout", subject=f"1.{number}.0")
        if number % 2:
            assert run("seal").exit_code == 0
    told = run("verify", "--require-head")
    assert told.exit_code == 0, told.output
    assert "OK: 6 rows, 3 batches, 0 not sealed yet" in told.output
    assert "compared with the head kept for batch 3, signed with our key" in told.output
    assert [row["subject"] for row in json.loads(run("show", "scout", "--limit", "2", "--json").output)] == [
        "1.5.0",
        "1.4.0",
    ]

    with psycopg.connect(database.superuser, autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")  # no trigger fires, and none is disabled
        admin.execute("UPDATE perennial.audit SET actor = 'nobody' WHERE id = 4")
        facts = json.loads(run("verify", "--json").output)
        assert [(one["kind"], one["batch"], one["row"]) for one in facts["findings"]] == [("edited", 2, 4)]
        admin.execute("UPDATE perennial.audit SET actor = 'editor' WHERE id = 4")
        assert run("verify").exit_code == 0

        admin.execute("DELETE FROM perennial.audit WHERE id > 4")
        admin.execute("DELETE FROM perennial.audit_batches WHERE batch > 2")
    told = run("verify")
    assert told.exit_code == 1
    assert told.output.startswith(
        "BROKEN: cut: rows are missing after row 4: the chain ends with batch 2, a kept head knows batch 3"
    )
    log.append(actor="editor", action="approved")
    refused = run("seal")  # nothing is sealed on top of a cut chain
    assert type(refused.exception).__name__ == "AuditBroken"
    assert [seal.batch for seal in log.seals(0)] == [1, 2]
