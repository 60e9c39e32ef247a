"""`perennial audit`: exit codes, the first bad row in words and as JSON, heads that somebody wrote down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner, Result

from perennial.audit.memory import MemoryAuditLog
from perennial.cli import audit

pytestmark = pytest.mark.req("K70")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryAuditLog:
    made = MemoryAuditLog()
    settings = SimpleNamespace(home=tmp_path, signing_key_file=None, signing_key_password=None, verify_key_file=None)
    monkeypatch.setattr(audit, "_ports", lambda: SimpleNamespace(audit=made, settings=settings))
    for number in range(5):
        made.append(actor="editor", action="approved", agent="scout", subject=f"1.{number}.0", detail={"rows": number})
    return made


def run(*words: str) -> Result:
    app = typer.Typer()
    audit.register(app)
    app.command("other")(lambda: None)  # with a single command typer drops its name
    return CliRunner().invoke(app, ["audit", *words])


def edit(log: MemoryAuditLog, row_id: int) -> None:
    log._entries[row_id - 1] = replace(log._entries[row_id - 1], actor="nobody")


def test_a_sound_record_is_ok_and_the_missing_head_is_said(log: MemoryAuditLog) -> None:
    told = run("verify")
    assert told.exit_code == 0
    assert "OK: 5 rows, 0 batches, 5 not sealed yet" in told.output
    assert "no head is kept outside the database" in told.output
    assert run("verify", "--require-head").exit_code == 1
    told = run("seal")
    assert "sealed 5 rows; 5 in all, up to row 5" in told.output
    head = log.seals(0)[0].hash.hex()
    assert f"head 1:{head}" in told.output
    told = run("verify")
    assert f"head 1:{head}" in told.output
    assert "compared with the head kept for batch 1, not signed" in told.output
    again = json.loads(run("seal", "--json").output)
    assert (again["sealed"], again["head"]["hash"]) == (0, head)


def test_the_first_bad_row_is_named_and_the_exit_code_is_1(log: MemoryAuditLog) -> None:
    run("seal")
    edit(log, 4)
    edit(log, 2)
    told = run("verify")
    assert told.exit_code == 1
    assert told.output.startswith("BROKEN: edited: row 2 was changed after it was written")
    assert "also edited: row 4" in told.output
    facts = json.loads(run("verify", "--json").output)
    assert (facts["sound"], facts["found"], facts["rows"]) == (False, 2, 5)
    assert facts["findings"][0] == {
        "kind": "edited", "batch": 1, "row": 2, "text": "row 2 was changed after it was written",
    }  # fmt: skip


def test_a_head_on_paper_finds_a_cut_also_when_the_file_is_gone(log: MemoryAuditLog, tmp_path: Path) -> None:
    run("seal")
    noted = f"1:{log.seals(0)[0].hash.hex()}"
    assert run("verify", "--head", noted).exit_code == 0
    log._seals.clear()
    log._entries.clear()
    (tmp_path / "audit" / "heads.jsonl").unlink()
    assert run("verify").exit_code == 0
    told = run("verify", "--head", noted)
    assert told.exit_code == 1
    assert "rows are missing from the first on" in told.output
    assert run("verify", "--head", "1:abc").exit_code == 2


def test_show_lists_the_newest_first(log: MemoryAuditLog) -> None:
    lines = run("show", "scout", "--limit", "2").output.splitlines()
    assert [line.split()[0] for line in lines] == ["5", "4"]
    assert lines[0].endswith('editor: approved  scout 1.4.0  {"rows": 4}')
    assert [row["id"] for row in json.loads(run("show", "--json").output)] == [5, 4, 3, 2, 1]
    assert run("show", "desk").output == "no decision about desk yet\n"
