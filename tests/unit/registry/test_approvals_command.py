"""`perennial approvals` on a deployment in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from perennial.cli import approvals
from tests.unit.flows.desk import Desk
from tests.unit.registry.samples import Keys

pytestmark = pytest.mark.req("K36", "K82")


@pytest.fixture
def desk(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path, keys, "approvers=('bo',)")
    monkeypatch.setattr(approvals, "_ports", lambda: made.ports)
    return made


def _run(*arguments: str) -> str:
    app = typer.Typer()
    approvals.register(app)
    found = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "240"})
    assert found.exit_code == 0, found.output
    return found.output


def test_nothing_is_said_in_words(desk: Desk) -> None:
    assert "nobody is asked anything now" in _run()
    assert "nobody decided anything yet" in _run("scout")


def test_who_decided_what_about_which_bytes(desk: Desk) -> None:
    ref = desk.waiting(by="ana")
    desk.answer(ref, "mallory")
    found = json.loads(_run("scout", "--json"))
    (waits,) = found["open"]
    assert (waits["version"], waits["requested by"], waits["job"]) == ("1.0.0", "ana", str(ref.job_id))
    assert waits["form"] == "http://airflow.test/dags/train_scout/runs/run-1/tasks/approve"
    desk.answer(ref, "bo")
    found = json.loads(_run("--json"))
    assert found["open"] == []
    last, first = found["decided"]
    assert (last["by"], last["decision"], last["version"], last["does not count"]) == ("bo", "approve", "1.0.0", "")
    assert (first["by"], first["does not count"]) == ("mallory", "mallory is not one of the approvers (bo)")
    assert last["digest"] == waits["digest"]
    assert last["expires"] > last["at"]
    table = _run("scout")
    assert waits["digest"][:16] in table
    assert waits["digest"] not in table
    assert json.loads(_run("analyst", "--json")) == {"open": [], "decided": []}


def test_a_question_is_closed_by_a_refusal_and_by_the_end_of_its_job(desk: Desk) -> None:
    ref = desk.waiting()
    assert len(json.loads(_run("--json"))["open"]) == 1
    desk.later(hours=2)  # its lease ran out: nobody waits for the answer any more
    assert json.loads(_run("--json"))["open"] == []
    desk.later(hours=-2)
    desk.answer(ref, "nobody", approved=False)
    assert json.loads(_run("--json"))["open"] == []
