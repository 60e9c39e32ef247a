"""What the pages show and do: numbers from the stores, empty and full, for every role, and every action on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus
from perennial.errors import InvalidExample, NotConfigured, RegistryError, RolloutError, StoreUnavailable
from perennial.fleet.agent import Gates
from perennial.flows.explain import explain as explain_flow
from perennial.flows.training_switch import switch_training
from perennial.ingest.results import Due
from perennial.pages import explain, fleet, version
from perennial.pages.charts import Point, interval, sparkline, trend
from perennial.pages.gate_report import gaps
from perennial.pages.overview import PortsOverview, Standing
from perennial.pages.page import Action, Page
from perennial.pages.roles import Role, role_of
from perennial.settings import Settings
from tests.pages_world import NOW, PagesWorld, Seen, gate_report, make_pages_world

FORM = {"content-type": "application/x-www-form-urlencoded"}
PATHS = (
    "/fleet", "/version", "/version?agent=scout", "/version?agent=scout&version=1.0.0", "/version?agent=desk", "/explain",
    "/explain?agent=scout&at=14:02:30", "/explain?agent=desk",
)  # fmt: skip


@pytest.fixture
def world() -> PagesWorld:
    return make_pages_world()


def _fleet(world: PagesWorld) -> dict[str, fleet.AgentRow]:
    view = fleet.gather(world.ports, PortsOverview(world.ports), world.dags)
    return {row.name: row for row in view.rows}


def _version(world: PagesWorld, **asked: str) -> version.VersionView:
    return version.gather(world.ports, PortsOverview(world.ports), **asked)


# --- fleet ------------------------------------------------------------------------------------------------------------------


@pytest.mark.req("J50")
def test_the_fleet_in_numbers(world: PagesWorld) -> None:
    rows = _fleet(world)
    scout, desk = rows["scout"], rows["desk"]
    assert (scout.standing.champion, scout.standing.candidate, scout.standing.share) == ("1.0.0", "1.0.1", 0.05)
    assert [(one.version, one.score) for one in scout.standing.trend] == [("1.0.0", 0.86), ("1.0.1", 0.91)]
    assert {(one.task, one.state): one.rows for one in scout.standing.tallies} == {
        ("topic", "ready"): 7,
        ("topic", "trained"): 6,
    }
    assert (scout.paused, scout.next) == (False, "43 more rows, or the night at 02:02")
    assert (desk.paused, desk.next, desk.standing.champion) == (True, "nothing while it is paused", None)


def test_what_starts_the_next_training() -> None:
    night = NOW.replace(hour=2, minute=0)

    def told(paused: bool = False, breaker: str = "", waits: str = "", running: bool = False, **due: Any) -> str:
        given = {"due": False, "reason": None, "waiting": 10, "corrections": 0, "threshold": 50, **due}
        standing = Standing(agent="scout", running=running, due=None if running else Due(**given))
        return fleet.next_trigger(standing, paused=paused, breaker=breaker, waits=waits, night=night)

    assert told() == "40 more rows, or the night at 02:00"
    assert told(waiting=49) == "1 more row, or the night at 02:00"
    assert told(running=True) == "after the training that runs now"
    assert told(due=True, reason="threshold") == "now"
    assert (
        told(due=True, reason="threshold", breaker="b", waits="b") == "a correction, a request, or the night at 02:00"
    )
    assert told(due=True, reason="correction", breaker="b") == "now"
    assert told(due=True, reason="threshold", waits="the budget is spent") == "nothing now: the budget is spent"
    assert told(due=True, reason="correction", paused=True) == "nothing while it is paused"


def test_a_breaker_that_is_open_is_said(world: PagesWorld) -> None:
    for _ in range(5):
        world.ledger.add_gate_report(
            agent="scout", job_id=uuid4(), attempt=1, content_digest="x", action="hold", report=gate_report("hold")
        )
    scout = _fleet(world)["scout"]
    assert "5 candidates in a row were refused" in scout.breaker
    assert scout.next.startswith("a correction, a request")
    page = world.client().get("/fleet").text
    assert "stopped" in Seen(page).text


def test_an_agent_that_is_due_and_may_not_train_says_why_instead_of_now() -> None:
    world = make_pages_world(full=False)
    world.dags.set_paused("train_desk", False)
    world.release("desk", "1.0.0")
    world.canary("desk", "1.0.0")
    world.add("desk", "topic", [f"text {number}" for number in range(60)])
    desk = _fleet(world)["desk"]
    assert desk.next == "nothing now: its first version 1.0.0 is still in rollout"
    shown = Seen(world.client().get("/fleet").text).text
    assert fleet._due_words(desk) == ("waits", "warn", "its first version 1.0.0 is still in rollout")
    assert "nothing now: its first version 1.0.0 is still in rollout" in shown
    assert "0 due" in shown


def test_a_breaker_that_is_open_beside_a_candidate_is_said_when_the_agent_is_due() -> None:
    world = make_pages_world(full=False)
    world.dags.set_paused("train_scout", False)
    world.release("scout", "1.0.0")
    world.serve("scout", "1.0.0")
    for _ in range(5):
        world.clock.move(1)
        world.ledger.add_gate_report(
            agent="scout", job_id=uuid4(), attempt=1, content_digest="x", action="hold", report=gate_report("hold")
        )
    world.clock.move(1)
    world.release("scout", "1.0.1")
    world.canary("scout", "1.0.1")
    world.add("scout", "topic", [f"text {number}" for number in range(60)])
    scout = _fleet(world)["scout"]
    assert "5 candidates in a row were refused" in scout.breaker
    assert scout.next.startswith("a correction, a request")


def test_made_up_task_names_share_one_line(world: PagesWorld) -> None:
    for number in range(3):
        world.add("desk", f"nowhere{number}", ["a text"])
    assert "nowhere0 1 quarantined" in Seen(world.client().get("/fleet").text).text
    for number in range(3, 40):
        world.add("desk", f"nowhere{number}", ["a text"])
    shown = Seen(world.client().get("/fleet").text).text
    assert "40 other tasks 40 quarantined" in shown
    assert "nowhere" not in shown
    assert "topic 7 ready" in shown


@pytest.mark.req("J50")
def test_pausing_really_pauses_and_is_on_record(world: PagesWorld) -> None:
    client = world.client()
    done = client.post("/fleet/pause", headers=FORM, content="agent=scout&reason=holiday")
    assert (done.status_code, done.headers["location"]) == (303, "/fleet?said=paused")
    assert world.dags.facts(["train_scout"])["train_scout"].paused
    entry = world.audit.entries("scout")[0]
    assert (entry.actor, entry.action, dict(entry.detail)) == ("operator", "training_paused", {"why": "holiday"})
    page = client.get(done.headers["location"])
    assert "Trainings are paused." in page.text
    assert client.post("/fleet/resume", headers=FORM, content="agent=scout&reason=back").status_code == 303
    assert not world.dags.facts(["train_scout"])["train_scout"].paused
    assert [one.action for one in world.audit.entries("scout", 2)] == ["training_resumed", "training_paused"]


def test_a_switch_that_fails_is_on_record_too(world: PagesWorld) -> None:
    empty = type(world.dags)()
    with pytest.raises(RolloutError, match="does not know the DAG train_scout"):
        switch_training(world.ports, empty, "scout", paused=True, actor="ana", reason="why")
    assert [one.action for one in world.audit.entries("scout", 2)] == ["training_paused_failed", "training_paused"]
    for actor, reason in (("", "why"), ("ana", " ")):
        with pytest.raises(RolloutError, match="a reason"):
            switch_training(world.ports, world.dags, "scout", paused=True, actor=actor, reason=reason)
    with pytest.raises(NotConfigured):
        switch_training(world.ports, world.dags, "nobody", paused=True, actor="ana", reason="why")


# --- version ----------------------------------------------------------------------------------------------------------------


@pytest.mark.req("J108", "J50")
def test_a_version_with_what_judged_it(world: PagesWorld) -> None:
    view = _version(world, agent="scout", subject="1.0.1")
    assert view.explanation is not None
    assert (view.explanation.outcome, view.champion) == ("is on its way as candidate", "1.0.0")
    assert view.explanation.trigger is not None
    assert view.explanation.trigger.requested_by == "ana"
    assert [(one.what, one.text) for one in view.changed] == [
        ("broken", "text 1 of scout 1.0.1"), ("fixed", "text 2 of scout 1.0.1"),
    ]  # fmt: skip
    assert {one.text for one in view.learned} == {f"text {number} of scout 1.0.1" for number in range(3)}
    assert [one.version for one in view.versions] == ["1.0.1", "1.0.0"]
    assert len(view.verdicts) == 2
    text = Seen(world.client().get("/version?agent=scout&version=1.0.1").text).text
    for told in (
        "−1.0 … +5.0",
        "topic: the group region: no row names it",
        "6 fixed",
        "4 broken",
        "Model in MLflow",
        "too few rows",
    ):
        assert told in text, told


def test_a_question_waits_as_long_as_somebody_may_answer_it(world: PagesWorld) -> None:
    world.add("desk", "topic", ["a", "b", "c"])
    job = world.buffer.open_job(JobRequest(agent="desk", run_id="asks"))
    attempt = world.buffer.start_attempt(job, 3600.0)
    assert attempt is not None
    world.buffer.claim("desk", job, attempt, 10)
    digest = "ab" * 32
    given: dict[str, Any] = {"agent": "desk", "job_id": job, "attempt": attempt, "content_digest": digest}
    world.ledger.add_gate_report(**given, action="approve", report=gate_report("approve", "asks"))
    world.ledger.ask(**given, version="1.0.0", requested_by="", body_digest="00")

    def approval() -> str:
        return Seen(world.client().get(f"/version?agent=desk&version={job}").text).text

    assert "Answer in Airflow" in approval()
    two = replace(world.fleet.agent("desk"), gates=Gates(two_person=True))
    members = tuple(replace(one, agent=two if one.agent.name == "desk" else one.agent) for one in world.fleet.members)
    world.ports = replace(world.ports, fleet=lambda: replace(world.fleet, members=members))
    world.ledger.add_approval(**given, version="1.0.0", decision="approve", actor="ana", comment="fine")
    assert "ana" in approval()
    assert "Answer in Airflow" in approval()
    world.buffer.give_back(job, attempt, refused=False, reason="failed: stopped")
    world.buffer.finish(job, attempt, JobStatus.FAILED, note="3 rows given back")
    assert "Answer in Airflow" not in approval()


@pytest.mark.req("K35")
def test_groups_side_by_side_and_what_was_not_measured() -> None:
    report = gate_report()
    report["tables"][0]["slices"].append({**report["tables"][0]["slices"][0], "name": "world", "candidate": 0.71})
    found = {(one.task, one.kind): one for one in gaps(report)}
    by_label = found["topic", "label"]
    assert (by_label.gap, by_label.best, by_label.worst) == (0.2, "sports", "world")
    assert found["topic", "source"].missing == "fewer than two groups have enough rows"
    assert found["topic", "stress"].gap is None
    world = make_pages_world(full=False)
    world.release("scout", "1.0.0", report=report)
    text = Seen(world.client().get("/version?agent=scout&version=1.0.0").text).text
    assert text.count("not measured") >= 2


def test_a_refused_candidate_has_a_page(world: PagesWorld) -> None:
    job = world.ledger.versions("scout")[0].job_id
    page = world.client().get(f"/version?agent=scout&version={job}")
    assert page.status_code == 200
    assert "scout 1.0.1" in Seen(page.text).text  # a job that released a version shows that version
    from perennial.domain.job import JobRequest

    held = world.buffer.open_job(JobRequest(agent="scout", run_id="held-run"))
    world.ledger.add_gate_report(
        agent="scout",
        job_id=held,
        attempt=1,
        content_digest="x",
        action="hold",
        report=gate_report("hold", "hold: slices fell"),
    )
    text = Seen(world.client().get(f"/version?agent=scout&version={held}").text).text
    assert "hold: slices fell" in text
    assert "not released yet" in text


def test_an_airflow_run_leads_to_its_version(world: PagesWorld) -> None:
    assert _version(world, dag="train_scout", run="manual__scout__1.0.1").subject == "1.0.1"
    assert _version(world, dag="rollout_scout", run="rollout-scout-1.0.0").subject == "1.0.0"
    assert _version(world, dag="train_scout", run="unknown").subject == "1.0.0"
    assert _version(world, dag="train_scout").agent == "scout"
    for dag in ("harvest", "train_nobody", "somebody_elses"):
        assert _version(world, dag=dag, run="x").agent == ""


@pytest.mark.req("J108")
def test_the_way_back_is_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_pages_world(full=False)
    for number in ("1.0.0", "1.0.1"):
        world.release("scout", number)
        world.serve("scout", number)
    asked: list[tuple[Any, ...]] = []

    def rollback(ports: Any, agent: str, *, actor: str, reason: str, version: str) -> dict[str, str]:
        asked.append((agent, actor, reason, version))
        return {}

    monkeypatch.setattr(version, "rollback_agent", rollback)
    client = world.client()
    page = client.get("/version?agent=scout&version=1.0.0").text
    assert "Serve 1.0.0 again" in page
    assert "Serve 1.0.1 again" not in client.get("/version?agent=scout&version=1.0.1").text
    done = client.post("/version/rollback", headers=FORM, content="agent=scout&version=1.0.0&reason=worse")
    assert done.status_code == 303
    assert asked == [("scout", "operator", "worse", "1.0.0")]
    assert "Serve 1.0.0 again" not in world.client(Role.EDITOR).get("/version?agent=scout&version=1.0.0").text


def test_the_page_of_a_version_leads_to_mlflow_without_its_login() -> None:
    world = make_pages_world(settings=Settings(mlflow_url="http://trainer:s3cret-pw@mlflow:5000"))
    page = world.client(Role.VIEWER).get("/version?agent=scout")
    assert "s3cret-pw" not in page.text
    assert "trainer" not in page.text
    assert "http://mlflow:5000/#/models/scout" in {one.get("href") for one in Seen(page.text).all("a")}


@pytest.mark.parametrize("url", ["databricks", "sqlite:////srv/mlflow.db"])
def test_an_mlflow_without_pages_is_named_without_a_link(url: str) -> None:
    page = make_pages_world(settings=Settings(mlflow_url=url)).client().get("/version?agent=scout")
    assert page.status_code == 200
    assert "Model in MLflow" in Seen(page.text).text
    assert not [one for one in Seen(page.text).all("a") if "#/models" in (one.get("href") or "")]


# --- explain ----------------------------------------------------------------------------------------------------------------


def test_what_served_then(world: PagesWorld) -> None:
    view = explain.gather(world.ports, agent="scout", at="14:02:30", now=NOW)
    assert view.answer is not None
    assert view.answer.moment is not None
    assert (view.answer.moment.champion, view.answer.moment.actor) == ("1.0.0", "perennial")
    before = explain.gather(world.ports, agent="scout", at="2026-11-20T00:00", now=NOW)
    assert before.answer is not None
    assert before.answer.moment is not None
    assert before.answer.moment.champion is None
    text = Seen(world.client().get("/explain?agent=scout&at=2026-11-20").text).text
    assert "Nothing served then. The first was 1.0.0" in text
    for wrong in ("noon", "25:00", "2026-13-01"):
        with pytest.raises(InvalidExample, match="is not a time"):
            explain.moment(wrong, NOW)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("14:02", "2026-11-21T14:02+00:00"),
        (" 14:02 ", "2026-11-21T14:02+00:00"),
        ("14:02Z", "2026-11-21T14:02+00:00"),
        ("14:02+01", "2026-11-21T13:02+00:00"),
        ("14:02-05", "2026-11-21T19:02+00:00"),
        ("14:02+0200", "2026-11-21T12:02+00:00"),
        ("14:02:30+02:00", "2026-11-21T12:02:30+00:00"),
        ("00:30+11", "2026-11-21T13:30+00:00"),  # today is the 22nd there
        ("2026-11-20T09:00+01", "2026-11-20T08:00+00:00"),
        ("2026-11-20 09:00", "2026-11-20T09:00+00:00"),
    ],
)
def test_a_clock_time_is_read_in_the_zone_that_it_names(typed: str, meant: str) -> None:
    assert explain.moment(typed, NOW) == datetime.fromisoformat(meant)


@pytest.mark.parametrize("typed", ["14:02+1", "14:02 01", "14:02+25", "14:02 CET", "9:5", "1402+01"])
def test_a_time_that_could_be_misread_is_refused(typed: str) -> None:
    with pytest.raises(InvalidExample, match="is not a time"):
        explain.moment(typed, NOW)


@pytest.mark.parametrize("typed", ["0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59"])
def test_a_time_at_the_end_of_the_calendar_breaks_no_page(world: PagesWorld, typed: str) -> None:
    answer = world.client().get("/explain", params={"agent": "scout", "at": typed})
    assert answer.status_code == 422
    assert "is not a time" in answer.text


@pytest.mark.parametrize("ended", ["released", "judged", "open"])
def test_a_job_of_another_agent_explains_nothing(world: PagesWorld, ended: str) -> None:
    if ended == "released":
        job = world.release("desk", "1.0.0", note="desk's own training").job_id  # scout has a 1.0.0 of its own
    else:
        job = world.buffer.open_job(JobRequest(agent="desk", run_id="desk-1"))
    if ended == "judged":
        world.ledger.add_gate_report(
            agent="desk", job_id=job, attempt=1, content_digest="x", action="hold", report=gate_report("hold")
        )
    with pytest.raises(RegistryError, match=f"job {job} is one of desk, not of scout"):
        explain_flow(world.ports, "scout", str(job))
    client = world.client()
    assert client.get(f"/version?agent=scout&version={job}").status_code == 404
    assert explain_flow(world.ports, "desk", str(job), check_files=False).agent == "desk"
    assert client.get(f"/version?agent=desk&version={job}").status_code == 200


# --- every page -------------------------------------------------------------------------------------------------------------


EVERY = [(path, True) for path in PATHS] + [(path, False) for path in PATHS if "version=" not in path]


@pytest.mark.parametrize(("path", "full"), EVERY, ids=[f"{path} {'full' if full else 'empty'}" for path, full in EVERY])
def test_every_page_full_and_empty_is_accessible(path: str, full: bool) -> None:
    page = make_pages_world(full=full).client().get(path)
    assert page.status_code == 200, page.text
    seen = Seen(page.text)
    tags = [tag for tag, _ in seen.elements]
    assert [tags.count(tag) for tag in ("main", "nav", "header", "h1")] == [1, 1, 1, 1]
    levels = [int(tag[1]) for tag in tags if tag in {"h1", "h2", "h3", "h4"}]
    assert all(new <= old + 1 for old, new in pairwise(levels)), levels
    assert {"href": "#main", "class": "skip"} in seen.all("a")
    assert tags.count("table") == tags.count("caption")
    assert all(head.get("scope") in {"col", "row"} for head in seen.all("th"))
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {label.get("for") for label in seen.all("label")}
    fields = [one for tag in ("input", "select", "textarea") for one in seen.all(tag) if one.get("type") != "hidden"]
    assert all(one.get("id") in labelled for one in fields)
    assert all(chart.get("aria-label") for chart in seen.all("svg"))
    scripts = [(one.get("src"), "defer" in one) for one in seen.all("script")]
    assert scripts == [("/static/pages.js", True)]
    assert all((one.get("href") or "").startswith(("/", "#", "http://127.0.0.1:5500/")) for one in seen.all("a"))


@pytest.mark.parametrize("role", list(Role))
def test_what_each_role_may(world: PagesWorld, role: Role) -> None:
    client = world.client(role)
    reads = 200 if role >= Role.VIEWER else 403
    assert {client.get(path).status_code for path in PATHS} == {reads}
    acts = 303 if role is Role.OPERATOR else 403
    assert client.post("/fleet/pause", headers=FORM, content="agent=scout&reason=why").status_code == acts
    assert world.dags.facts(["train_scout"])["train_scout"].paused is (role is Role.OPERATOR)
    assert ("Resume scout" in client.get("/fleet").text) is (role is Role.OPERATOR)
    refused = client.post("/version/rollback", headers=FORM, content="agent=scout&version=9.9.9&reason=why").status_code
    assert (refused == 403) is (role is not Role.OPERATOR)


def test_grants_raise_and_lower() -> None:
    world = make_pages_world(
        settings=Settings(pages_grants={"viewer": "operator", "operator": "nobody", "editor": "boss"})
    )
    assert (
        world.client(Role.VIEWER).post("/fleet/pause", headers=FORM, content="agent=scout&reason=why").status_code
        == 303
    )
    assert world.client(Role.OPERATOR).get("/fleet").status_code == 403
    assert world.client(Role.EDITOR).get("/fleet").status_code == 403  # a word that is no role grants nothing
    assert role_of("x", Role.VIEWER, {}) is Role.VIEWER


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        ("agent=scout", FORM, 422), ("agent=scout&reason=%20", FORM, 422), ("reason=why", FORM, 422), ("", FORM, 422),
        (f"agent=scout&reason={'x' * 501}", FORM, 422), ("agent=nobody&reason=why", FORM, 503),
        ('{"agent": "scout"}', {"content-type": "application/json"}, 415), ("agent=scout&reason=why", {"content-type": "text/plain"}, 415),
        ("&".join(f"a{number}=1" for number in range(60)), FORM, 422), ("agent=%ff&reason=x", FORM, 503),
    ],
)  # fmt: skip
def test_a_broken_form_changes_nothing(world: PagesWorld, content: str, headers: dict[str, str], status: int) -> None:
    answer = world.client().post("/fleet/pause", headers=headers, content=content)
    assert answer.status_code == status
    assert not world.dags.facts(["train_scout"])["train_scout"].paused
    assert not [entry for entry in world.audit.entries() if entry.action == "training_paused"]


def test_errors_are_pages_that_tell_no_secret(world: PagesWorld) -> None:
    def page(fails: Callable[[], Any]) -> Page:
        return Page(
            path="/x",
            title="X",
            show=lambda site, asked: fails(),
            actions=(Action(path="/x/y", role=Role.EDITOR, run=lambda *_: fails()),),
        )

    def away() -> None:
        raise StoreUnavailable("PostgreSQL is away; try again")

    def crash() -> None:
        raise RuntimeError("password=hunter2")

    for fails, status in ((away, 503), (crash, 500)):
        client = TestClient(
            world.app(pages=(page(fails),)), cookies=world.client().cookies, headers={"origin": "http://testserver"}
        )
        for answer in (client.get("/x"), client.post("/x/y", headers=FORM, content="a=b")):
            assert answer.status_code == status
            assert "hunter2" not in answer.text
    client = world.client()
    for path, status in (("/nope", 404), ("/version?agent=nobody", 404), ("/version?agent=scout&version=9.9.9", 404),
                         ("/explain?agent=scout&at=noon", 422), ("/static/../app.py", 404), ("/static/x.css", 404)):  # fmt: skip
        assert client.get(path).status_code == status, path
    assert client.get("/fleet/pause").status_code == 405
    assert client.get("/").headers["location"] == "/fleet"


def test_static_files_are_ours_alone(world: PagesWorld) -> None:
    client = world.client()
    kinds = {
        "pages.css": "text/css",
        "pages.js": "text/javascript",
        "leaf.svg": "image/svg+xml",
        "leaf-dark.svg": "image/svg+xml",
    }
    for name, kind in kinds.items():
        answer = client.get(f"/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "http:" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in answer.text
        assert "eval(" not in answer.text


def test_charts_say_in_words_what_they_draw() -> None:
    line = [
        Point(label=f"1.0.{number}", value=value, low=0.4, high=0.9) for number, value in enumerate((0.5, None, 0.75))
    ]
    for chart in (sparkline(line, title="Score"), trend(line, title="Score")):
        seen = Seen(str(chart))
        assert "2 values from 50.0 % (1.0.0) to 75.0 % (1.0.2)" in seen.text
        assert "NaN" not in str(chart)
    assert "no score yet" in str(sparkline([], title="Score"))
    one = str(sparkline([Point(label="1.0.0", value=0.5)], title="Score"))
    assert one.count("<circle") == 1
    far = str(interval(-0.9, -0.8, -0.7, reach=0.15, title="x"))
    assert "worse" in far
    assert all(0 <= float(value) <= 150 for value in (attributes["x1"] or 0 for attributes in Seen(far).all("line")))


def test_the_overview_knows_a_row_of_another_agent_is_not_mine(world: PagesWorld) -> None:
    world.add("desk", "topic", ["only desk"])
    rows = _fleet(world)
    assert sum(tally.rows for tally in rows["desk"].standing.tallies) == 1
    assert replace(rows["scout"].standing, agent="desk") != rows["desk"].standing
