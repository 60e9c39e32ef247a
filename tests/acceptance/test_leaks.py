"""Twenty planted pieces of personal data go through a whole run with its failures; nothing that was written holds one of them.

Where they may be: in the originals and the rejected records, which the admit role alone reads.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from perennial import wiring
from perennial.api.app import create_app
from perennial.api.data_plane import services_of
from perennial.api.services import Services
from perennial.cli import build
from perennial.domain.words import Mode, Reason, RolloutDecision
from perennial.errors import ScriptFailed, StepFailed, ValidationFailed
from perennial.flows import harvest, rollout, train
from perennial.flows.decide import decide
from perennial.flows.training_switch import DagFacts, MemoryDags
from perennial.pages.app import PAGES, pages_app
from perennial.pages.overview import PostgresOverview
from perennial.pages.page import Site
from perennial.pages.roles import Role
from perennial.settings import Settings
from perennial.storage.database import Database as Pool
from perennial.trainers.command import Command
from tests.acceptance.leaks import CANARIES, Canary, Search, found_in, tables_as
from tests.acceptance.test_own_script import SCRIPT, WORDS
from tests.acceptance.world import World, make_world
from tests.pages_world import ORIGIN, TOKENS, people
from tests.postgres_fixture import Database

FLEET = """
from perennial.fleet import Agent, Gates, Rollout, Selection, Task
from perennial.trainers.command import Command

AGENT = Agent(
    name="scout", owner="tests", max_buffer_size=20000,
    tasks=(Task(name="length", labels=("long", "short"), max_length=2000), Task(name="topic", max_length=2000)),
    trainer=Command(script="scripts/words.py"),
    selection=Selection(holdout_share=0.3),
    gates=Gates(min_holdout=40),
    rollout=Rollout(step_seconds=0.0, min_samples=5),
)
"""
ORIGINALS = {"perennial.originals", "perennial.rejected"}
ALL = " and ".join(canary.text for canary in CANARIES)
SAYS = f"""
import sys
print({ALL!r})
print({ALL!r}, file=sys.stderr)
"""


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: f"{canary.kind}-{CANARIES.index(canary)}")
def test_the_search_finds_each_in_every_encoding(canary: Canary) -> None:
    value = canary.value
    written = (
        value, value.upper(), json.dumps({"text": f"é {value}"}), quote(value, safe=""), f"x{value}y",
        value.encode().hex(), *(base64.b64encode(b"." * n + canary.text.encode()).decode() for n in range(3)),
    )  # fmt: skip
    assert [canary in found_in(one.encode()) for one in written] == [True] * len(written)
    assert not found_in(
        b"Nothing of the kind, at 2026-11-21 14:02:33.123456 in run 8f2a on 127.0.0.1:8600 with 0.0123456789"
    )
    if canary.digits:
        assert canary in found_in(canary.digits)


@dataclass
class Deployment:
    """Everything over one PostgreSQL, as ``wiring`` joins it; what was answered and told is kept for the search."""

    world: World
    database: Database
    home: Path
    services: Services
    told: list[tuple[str, str]]

    def post(self, client: TestClient, path: str, body: Any) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = client.post(path, content=raw, headers={"content-type": "application/json"})
        self.told.append((f"API {path}", f"{answer.status_code} {dict(answer.headers)} {answer.text}"))

    def fails(self, what: str, kind: type[BaseException], step: Callable[[], Any]) -> None:
        """A step that must fail; its error is written as Airflow writes it, with the whole chain."""
        with pytest.raises(kind) as caught:
            step()
        logging.getLogger("airflow.task").error("Task failed with exception", exc_info=caught.value)
        self.told.append((f"error of {what}", f"{caught.value} {caught.value!r} {caught.value.__dict__}"))


@pytest.fixture
def deployment(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    home = tmp_path / "home"
    make_world(database, home, FLEET)
    (home / "fleet" / "scripts").mkdir()
    (home / "fleet" / "scripts" / "words.py").write_text(
        "import sys\nprint(" + repr(ALL) + ", file=sys.stderr)\n" + SCRIPT
    )
    named = {
        "HOME": home, "FLEET_FOLDER": home / "fleet", "DATABASE_URL": database.app, "ADMIT_DATABASE_URL": database.admit,
        "MLFLOW_URL": f"file://{tmp_path}/mlruns", "SIGNING_KEY_FILE": home / "keys" / "signing.pem",
        "SIGNING_KEY_PASSWORD": "test-password", "VERIFY_KEY_FILE": home / "keys" / "verify.pem", "RUN_SCRIPTS": "true",
        "INBOX": home / "inbox",
    }  # fmt: skip
    for name, value in named.items():
        monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", named["MLFLOW_URL"]
    )  # the store of files asks the default one too, which is ./mlflow.db
    from mlflow import MlflowClient

    # a server makes the model by itself; the store of files says "not found" in words that the adapter takes for a fault
    MlflowClient(named["MLFLOW_URL"], named["MLFLOW_URL"]).create_registered_model("scout")
    settings = Settings()
    ports = wiring.ports(settings)
    services = services_of(settings, ports, faults=False)
    return Deployment(World(ports), database, home, services, [])


def filler(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows that the script learns, and rows of a task without declared labels."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        size = draw.randint(4, 9) if number % 2 else draw.randint(12, 17)
        made.append({"agent": "scout", "task": "length", "text": " ".join(draw.choice(WORDS) for _ in range(size)),
                     "label": "short" if number % 2 else "long"})  # fmt: skip
    return made


def ingest(this: Deployment, client: TestClient) -> None:
    """Every field of every way in, well-formed and not."""
    this.post(client, "/v1/examples", filler(260, 1))
    for number, canary in enumerate(CANARIES):
        value, text, answer = canary.value, canary.text, canary.answer
        base = {"agent": "scout", "task": "length", "label": "short"}
        records: list[Any] = [
            {**base, "text": text, "source_id": value, "source_url": f"https://news.example/{quote(value)}?who={value}", "tag": value,
             "feedback": text},
            {**base, "text": f"{text} {number} once more", "label": answer, "predicted_output": answer},
            {**base, "task": "topic", "text": f"{text} for topic {number}", "label": answer},
            {**base, "task": "topic", "text": f"{text} of topic {number}", "label": {"entities": [[0, 4, answer]], answer: 1}},
            {**base, "text": f"{text} unlabelled", "label": None, "predicted_output": answer},
            {**base, "text": text + " word" * 600},  # too long
            {**base, "text": f"{text} \x07 bell"},  # quarantined: control characters
            {**base, "task": value, "text": text}, {**base, "agent": value, "text": text},
            {**base, "text": text, "uncertainty": value}, {**base, "text": text, "timestamp": value},
            {**base, "text": text, "example_id": value}, {**base, "text": text, value: value}, {**base, "text": {value: text}},
            [text], text,
        ]  # fmt: skip
        this.post(client, "/v1/examples", records)
        this.post(client, "/v1/feedback", {
            "agent": "scout", "task": "length", "text": f"{text} he said", "predicted_output": answer, "actual_output": "short",
            "confidence": 0.4, "source_id": value,
        })  # fmt: skip
        this.post(client, "/v1/feedback", {"agent": "scout", "task": "length", "text": text, "confidence": value})
        this.post(client, "/v1/corrections", {
            "agent_name": "scout", "task_type": "length", "input_text": f"{text} she said " + "tram " * 12, "incorrect_output": answer,
            "correct_output": "long", "explanation": text, "source_tag": value, "priority": 1, "source_id": value,
        })  # fmt: skip
        this.post(
            client,
            "/v1/corrections",
            {"agent_name": "scout", "task_type": "length", "input_text": text, "correct_output": None},
        )
        for report in (
            {"comment": text},
            {value: 1},
            {"kind": value},
            {"prediction_id": value},
            {"version": value, "reporter": value},
        ):
            this.post(
                client,
                "/v1/reports",
                {"agent": "scout", "version": "1.0.0", "kind": "wrong", "reporter": value, **report},
            )
        this.post(client, "/v1/predict", {"agent": value, "task": value, "inputs": [text], "key": value})
        this.post(client, f"/v1/{quote(value, safe='')}", {value: value})
        this.post(client, "/v1/rollback", {"agent": value, "reason": text})
        this.post(client, "/v1/rollback", {"agent": "scout", "version": value, "reason": text})
        this.post(client, "/v1/outcomes", {"prediction_id": value, "actual": answer})
    this.post(client, "/v1/examples", b'{"text": "' + ALL.encode() + b'", ')
    this.post(client, "/v1/examples", b'{"text": "' + ALL.encode() * 9000 + b'"}')  # larger than a body may be
    flood = [{"agent": "scout", "task": "length", "text": f"{CANARIES[0].text} {n}", "label": "short", "source_id": CANARIES[0].value}
             for n in range(40)]  # fmt: skip
    this.post(client, "/v1/examples", flood)


def inbox(this: Deployment) -> None:
    """Dropped files: broken lines, wrong fields, a wrong encoding, and one that cannot be read at all."""
    folder = this.home / "inbox"
    folder.mkdir()
    lines = []
    for canary in CANARIES:
        lines += [
            f'{{"agent": "scout", "text": "{canary.value}', json.dumps({"agent": canary.value, "task": "length", "text": canary.text}),
            json.dumps({"agent": "scout", "task": canary.value, "text": canary.text + " from a file", "label": "short"}),
            json.dumps({"agent": "scout", "text": canary.text, "input": canary.text, canary.value: 1}),
        ]  # fmt: skip
    (folder / "zdenka.quill@kestrelmoor.net.jsonl").write_text("\n".join(lines))
    table = ["agent,task,text,label", *(f'scout,length,"{canary.text}",short,{canary.value}' for canary in CANARIES)]
    (folder / "rows.csv").write_text("\n".join(table))
    (folder / "latin.csv").write_bytes(
        b"agent,task,text,label\nscout,length,\xff" + CANARIES[0].text.encode() + b",short\n"
    )
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    harvest.drain(this.world.ports, "inbox")


def fail_at_every_step(this: Deployment, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception with the texts in its message inside harvest, admission, validation, training and evaluation."""
    ports = this.world.ports

    def loud(*_: Any, **__: Any) -> Any:
        raise ValueError(ALL)

    with monkeypatch.context() as patch:
        patch.setattr("perennial.flows.harvest.drain_source", loud)
        this.fails("harvest", StepFailed, lambda: harvest.drain(ports, "inbox"))
    train.admit(ports, "scout")
    with monkeypatch.context() as patch:
        patch.setattr("perennial.flows.admission.check_record", loud)
        this.post(client, "/v1/examples", [
            {"agent": "scout", "task": "length", "text": f"{canary.text} at last", "label": "short"} for canary in CANARIES
        ])  # fmt: skip
        train.admit(ports, "scout")  # each row stands aside, visibly
        patch.setattr("perennial.ingest.admit.Admission.run", loud)
        this.fails("admit", StepFailed, lambda: train.admit(ports, "scout"))
    ref = this.world.claim(run_id="run-fails", mode=Mode.ONLINE)
    assert ref is not None
    with psycopg.connect(this.database.superuser, autocommit=True) as admin:
        # a detector that missed something: validation and the second scan meet it
        row = admin.execute(
            "SELECT example_id, input_text FROM perennial.examples WHERE job_id = %s AND NOT holdout AND state = 'claimed' LIMIT 1",
            (ref.job_id,),
        ).fetchone()
        assert row is not None
        admin.execute(
            "UPDATE perennial.examples SET input_text = %s, expected_output = '\"nobody@kestrelmoor.net\"' WHERE example_id = %s",
            (ALL, row[0]),
        )
        this.fails("validate", ValidationFailed, lambda: train.validate(ports, ref))
        train.redact(ports, ref)
        admin.execute(
            "UPDATE perennial.examples SET input_text = %s, expected_output = '\"short\"' WHERE example_id = %s",
            (row[1], row[0]),
        )
    tasks = train.select(ports, ref)
    script = this.home / "fleet" / "scripts" / "words.py"
    good = script.read_text()
    script.write_text(SAYS + f"raise ValueError({ALL!r})\n")
    this.fails("the script", ScriptFailed, lambda: [train.train(ports, ref, task) for task in tasks])
    script.write_text(good)
    with monkeypatch.context() as patch:
        patch.setattr(Command, "fit", loud)
        this.fails("train", StepFailed, lambda: [train.train(ports, ref, task) for task in tasks])
    for task in tasks:
        train.train(ports, ref, task)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["perennial.flows.train.evaluate"], "examine", loud)
        this.fails("evaluate", StepFailed, lambda: train.evaluate(ports, ref))
    train.settle(ports, ref, "failed")


def serve_and_decide(this: Deployment, client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Release, rollout, answers with outcomes, a refused candidate, an aborted rollout and a rollback."""
    world, ports = this.world, this.world.ports
    verdict, settled = world.train_once(mode=Mode.ONLINE)
    assert settled["version"] == "1.0.0", verdict["summary"]
    world.promote()
    this.told.append(("gate page", verdict["text"]))
    gateway = this.services.gateway
    for _ in range(200):
        gateway.refresh()
        if (
            gateway.agents().get("scout", {}).get("champion")
            if isinstance(gateway.agents(), dict)
            else gateway.agents()
        ):
            break
    _ask(this, client)
    # a correction's patch, on its way out with the recorded requests replayed; a person aborts it
    this.post(client, "/v1/examples", filler(120, 2))
    verdict, settled = world.train_once(mode=Mode.ONLINE)
    this.told.append(("gate page", verdict["text"]))
    if settled["version"] is not None:
        ref = rollout.verify(ports, "scout", "rollout-abort")
        assert ref is not None
        rollout.shadow(ports, ref)
        this.told.append(("note", str(decide(ports, "scout", RolloutDecision.ABORT, actor="ana", reason="no good"))))
    # something worse is held, twice
    script = this.home / "fleet" / "scripts" / "words.py"
    script.write_text(script.read_text().replace("/ 2\n", "* 9\n"))
    this.post(client, "/v1/examples", filler(120, 3))
    ref = world.claim(reason=Reason.REQUEST, mode=Mode.ONLINE)
    assert ref is not None
    verdict = world.learn(ref)
    assert verdict["action"] == "hold", verdict["summary"]
    this.told.append(("gate page", verdict["text"]))
    world.release(ref, verdict)


def _ask(this: Deployment, client: TestClient) -> None:
    answers: list[tuple[str, Canary]] = []
    for canary in CANARIES:
        answer = client.post(
            "/v1/predict", json={"agent": "scout", "task": "length", "inputs": [canary.text], "key": canary.value}
        )
        this.told.append(("API /v1/predict", answer.text))
        assert answer.status_code == 200, answer.text
        answers.append((answer.json()["predictions"][0]["prediction_id"], canary))
    for identity, canary in answers:
        this.post(client, "/v1/outcomes", {"prediction_id": identity, "actual": canary.answer})
        this.post(client, "/v1/outcomes", {"prediction_id": identity, "actual": {canary.answer: canary.text}})
        this.post(
            client,
            "/v1/reports",
            {"agent": "scout", "prediction_id": identity, "kind": "wrong", "reporter": canary.value},
        )
    assert this.services.outcomes._recorder.flush(20.0)


def look_at_everything(this: Deployment) -> None:
    """Six pages with their actions, and the usual commands, with canaries in what is asked and in the reasons."""
    ports = this.world.ports
    dags = MemoryDags({"train_scout": DagFacts(paused=False)})
    shown = ports.settings.model_copy(
        update={"mlflow_url": "http://127.0.0.1:5500"}
    )  # a page links to a server, not to files
    site = Site(ports=replace(ports, settings=shown), overview=PostgresOverview(Pool(this.database.app)), dags=dags)
    client = TestClient(
        pages_app(lambda: site, identify=people()), cookies={"_token": TOKENS[Role.OPERATOR]}, follow_redirects=False
    )
    client.headers.update({"origin": ORIGIN, "accept": "text/html"})
    for page in PAGES:
        for query in ("", "?agent=scout", "?agent=scout&version=1.0.0", "?agent=scout&at=2026-11-22T12:00"):
            answer = client.get(page.path + query)
            assert answer.status_code < 500, answer.text
            this.told.append((f"page {page.path}", f"{dict(answer.headers)} {answer.text}"))
    shown = client.get("/quarantine?agent=scout").text
    assert "label_form" in shown
    for canary in CANARIES:
        for path, form in (
            ("/fleet/pause", {"agent": "scout"}), ("/fleet/resume", {"agent": "scout"}), 
            ("/rollout/abort", {"agent": "scout", "version": "1"}),
            ("/version/rollback", {"agent": "scout", "version": canary.value}),
            ("/quarantine/settle", {"agent": "scout", "state": "quarantined", "task": "length", "code": "label_form", "action": "drop"}),
        ):  # fmt: skip
            answer = client.post(path, data={**form, "reason": canary.text})
            this.told.append((f"page {path}", f"{dict(answer.headers)} {answer.text}"))
    runner = CliRunner()
    commands = [
        ["models", "scout"], ["explain", "scout"], ["corrections", "scout"], ["held", "scout"], ["quarantine", "scout"],
        ["buffer", "scout"], ["rollout", "scout"], ["audit", "show"], ["audit", "verify"], ["approvals"], ["alerts"], ["budget"],
        ["retention", "--dry-run"], ["import", str(this.home / "inbox" / "done" / "rows.csv"), "--agent", "scout"],
        ["rollout", "reset", "scout", "--reason", ALL], ["rollback", "scout", "--reason", ALL],
        ["agent", "set", "scout", "update_threshold=20", "--until", "1h", "--reason", ALL], 
        ["agent", "unset", "scout", "update_threshold", "--reason", ALL],
        ["quarantine", "scout", "--reason-code", "label_form", "--all", "drop", "--reason", ALL],
        ["retention", "hold", "scout", "1.0.0", "--reason", ALL],
    ]  # fmt: skip
    worked = 0
    for words in commands:
        done = runner.invoke(build(), words)
        worked += done.exit_code == 0
        this.told.append((f"command {words[0]}", f"{done.output} {done.exception!r}"))
    assert worked >= 12, [(place, text[-300:]) for place, text in this.told[-len(commands) :]]


@pytest.mark.timeout(900)
@pytest.mark.req("J50", "K67", "K68")
def test_nothing_raw_is_left_anywhere_after_a_whole_run_with_failures(
    deployment: Deployment,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    this = deployment
    client = TestClient(create_app(this.services), base_url="http://127.0.0.1")
    with client:
        ingest(this, client)
        inbox(this)
        fail_at_every_step(this, client, monkeypatch)
        serve_and_decide(this, client, caplog)
        look_at_everything(this)
    this.world.ports.relay()

    search = Search()
    for record in caplog.records:
        if record.name.startswith("httpx"):
            continue  # the caller's own record of what it asks
        if record.exc_info:
            search.look("log", f"{record.name} traceback", logging.Formatter().formatException(record.exc_info))
        search.look("log", f"{record.name}:{record.lineno}", f"{record.getMessage()} {record.__dict__}")
    out, err = capfd.readouterr()
    search.look("output of the processes", "stdout", out)
    search.look("output of the processes", "stderr", err)
    for place, text in this.told:
        search.look(place, place, text)
    search.files("files of the deployment", this.home, but=("inbox", "scripts/words.py", "script.json"))
    search.files("MLflow's store", this.home.parent / "mlruns", but=("script.json",))
    for table, number, row in tables_as(this.database.app):
        assert table not in ORIGINALS or table == "perennial.rejected"
        search.look(table, str(number), row)
    assert search.hits == [], search.table()
    # the search looked where something is, and what it looked for was planted: the admit role still finds all of it
    assert search.looked["perennial.examples"] > 300
    assert search.looked["perennial.recent_inputs"] == len(CANARIES)
    assert search.looked["perennial.audit"] > 20
    assert search.looked["MLflow's store"] > 20
    originals = Search()
    for table, number, row in tables_as(this.database.admit):
        originals.look(table, str(number), row)
    assert {place for place, _, _ in originals.hits} == ORIGINALS
    assert len({kind for _, _, kind in originals.hits}) == len(CANARIES)
