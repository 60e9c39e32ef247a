"""Releases are made again byte by byte, explained on one page, and followed from an example to every version that it touched.

One history for all tests: they read it, and put back what they change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import typer
from typer.testing import CliRunner, Result

from perennial.cli import provenance
from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.example import Example
from perennial.domain.job import BatchRef
from perennial.domain.words import Priority, Reason, Source
from perennial.errors import RegistryError
from perennial.flows import rollback, rollout, train
from perennial.flows.explain import explain
from perennial.flows.ports import Ports
from perennial.flows.reproduce import Outcome, Reproduction, reproduce
from perennial.registry.recipe import Role
from tests import postgres_fixture
from tests.acceptance.world import FLEET, World, make_world
from tests.postgres_fixture import Database, Server

NEWS, MOOD = "news_classification", "sentiment"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)


@dataclass(frozen=True)
class History:
    """What happened: 1.0.0 of both tasks; 1.0.1 from a correction; 1.0.2, reverted in its canary; a candidate with a new
    label that a person refused; and the way back to 1.0.0.
    """

    ports: Ports
    database: Database
    during_canary: datetime
    refused: BatchRef


def example(task: str, text: str, label: str, **more: Any) -> Example:
    """One row for the buffer."""
    return Example(
        agent="scout", task=task, input_text=text, expected_output=label, uncertainty=0.5, source_id="t",
        example_id=uuid4(), **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def history(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    made = postgres_fixture.database.__wrapped__(postgres_server)  # type: ignore[attr-defined]
    database = next(made)
    declared = FLEET.replace("replay=120", "replay=40")
    assert declared != FLEET
    world = make_world(database, tmp_path_factory.mktemp("provenance"), declared)
    yield _live(world, database)
    next(made, None)


def _live(world: World, database: Database) -> History:
    ports, stream = world.ports, NewsStream(5)
    rows = stream.articles(240, period=0.0, topics=EARLY)
    ports.buffer.add_many([example(NEWS, row.text, row.true_topic) for row in rows])
    ports.buffer.add_many([example(MOOD, row.text, row.sentiment) for row in rows[:140]])
    _, settled = world.train_once()
    assert settled["version"] == "1.0.0", settled
    world.promote()

    ports.buffer.add(_correction(world, stream))
    ref = world.claim(reason=Reason.CORRECTION, run_id="correction-run")
    assert ref is not None
    assert ref.urgent
    verdict = train.fast_lane(ports, ref)
    assert verdict["action"] == "pass", verdict["summary"]
    world.release(ref, verdict)
    world.promote()

    more = stream.articles(30, period=0.2, topics=EARLY)
    ports.buffer.add_many([example(NEWS, row.text, row.true_topic) for row in more])
    _, settled = world.train_once()
    assert settled["version"] == "1.0.2", settled
    canary = rollout.verify(ports, "scout", "canary-run")
    assert canary is not None
    rollout.shadow(ports, canary)
    rollout.begin_step(ports, canary, 0)
    during = datetime.now(UTC)
    rollout.begin_step(ports, canary, 1)
    rollout.revert(ports, canary, "too many errors")

    late = stream.articles(30, period=0.5, topics=(LATE_TOPIC,))
    ports.buffer.add_many([example(NEWS, row.text, row.true_topic) for row in late])
    refused = world.claim()
    assert refused is not None
    verdict = world.learn(refused)
    assert verdict["action"] == "approve", verdict["summary"]
    train.record_decision(ports, refused, False, "editor", "not yet")
    train.settle(ports, refused, "rejected")
    rollback.rollback_agent(ports, "scout", actor="editor", reason="wrong about sports")
    return History(ports, database, during, refused)


def _correction(world: World, stream: NewsStream) -> Example:
    models = rollout.predictors(world.ports, world.ports.fleet().agent("scout"), "1.0.0")
    rows = stream.articles(60, period=0.9, topics=EARLY)
    answers = models[NEWS].predict([row.text for row in rows])
    text, label = next(
        (row.text, row.true_topic) for row, answer in zip(rows, answers, strict=True) if answer.output != row.true_topic
    )
    return example(NEWS, text, label, priority=Priority.HIGH, source=Source.CORRECTION, importance=1.0)


def _ids(history: History, version: str, role: Role = Role.NEW, task: str = NEWS) -> list[UUID]:
    uses = history.ports.ledger.examples_of_version("scout", version)
    return [use.example_id for use in uses if (use.role, use.task) == (role, task)]


def _sql(history: History, statement: str, *values: object) -> None:
    with psycopg.connect(history.database.superuser) as connection:
        assert connection.execute(statement, values).rowcount > 0  # type: ignore[arg-type]


def _reproduced(history: History, version: str) -> Reproduction:
    return reproduce(history.ports, "scout", version)


@pytest.mark.req("K57", "J91")
def test_every_release_is_made_again(history: History) -> None:
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        found = _reproduced(history, version)
        release = history.ports.ledger.version("scout", version)
        assert release is not None
        assert (found.outcome, found.exit_code) == (Outcome.EQUAL, 0), found.reasons
        assert found.found == found.recorded == release.manifest["content_digest"]
    assert {task.task: task.how for task in found.tasks} == {MOOD: "kept from 1.0.1", NEWS: "trained"}
    assert all(task.equal for task in found.tasks)


@pytest.mark.req("K57", "J87")
def test_a_changed_a_purged_and_a_missing_row_are_named(history: History) -> None:
    row = _ids(history, "1.0.2")[0]
    with psycopg.connect(history.database.superuser) as connection:
        before = connection.execute(
            "SELECT expected_output::text, input_text, state::text FROM perennial.examples WHERE example_id = %s",
            (row,),
        ).fetchone()
    assert before is not None
    _sql(history, "UPDATE perennial.examples SET expected_output = '\"other\"' WHERE example_id = %s", row)
    found = _reproduced(history, "1.0.2")
    assert (found.outcome, found.exit_code, found.found) == (Outcome.DIFFERENT, 1, None)
    assert found.reasons == (f"{NEWS}: 1 row is changed since (text or label), so it was not trained again: {row}",)
    assert {task.task: task.equal for task in found.tasks} == {MOOD: True, NEWS: None}
    _sql(history, "UPDATE perennial.examples SET state = 'purged', input_text = NULL WHERE example_id = %s", row)
    found = _reproduced(history, "1.0.2")
    assert (found.outcome, found.exit_code) == (Outcome.IMPOSSIBLE, 2)
    assert found.reasons == (f"{NEWS}: 1 row is purged: {row}",)
    other = uuid4()
    _sql(history, "UPDATE perennial.examples SET example_id = %s WHERE example_id = %s", other, row)
    assert _reproduced(history, "1.0.2").reasons == (f"{NEWS}: 1 row is not in the buffer any more: {row}",)
    assert _reproduced(history, "9.9.9").exit_code == 2
    _sql(
        history,
        "UPDATE perennial.examples SET example_id = %s, expected_output = %s::jsonb, input_text = %s,"
        " state = %s::perennial.example_state WHERE example_id = %s",
        row, *before, other,
    )  # fmt: skip


@pytest.mark.req("K57")
def test_a_difference_is_explained_and_the_cache_is_not_trusted(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = sys.modules["perennial.flows.reproduce"]
    genuine = flow._train

    def other(ports: Any, manifest: Any, task: str, wanted: Any, check: Any, out: Any, bench: Any) -> None:
        genuine(ports, manifest, task, wanted, check, out, bench)
        if bench.embeddings is None:  # as when this machine rounds otherwise than the one that filled the cache
            import numpy as np
            from safetensors.numpy import load_file, save_file

            weights = load_file(out / "head.safetensors")
            save_file({name: value + np.float32(0.25) for name, value in weights.items()}, out / "head.safetensors")

    monkeypatch.setattr(flow, "_train", other)
    monkeypatch.setattr(flow, "machine", lambda: {"processor": "another", "system": "s", "python": "p"})
    monkeypatch.setattr(flow, "code_digest", lambda: "0" * 64)
    monkeypatch.setattr(flow, "environment", lambda: {"numpy": "0.1"})
    found = _reproduced(history, "1.0.1")
    assert found.outcome is Outcome.DIFFERENT
    told = "\n".join(found.reasons)
    for cause in (
        "with the embeddings that the deployment keeps",
        "machine: processor",
        "library: numpy",
        "other code",
    ):
        assert cause in told
    changed = next(task for task in found.tasks if task.task == NEWS)
    assert changed.differences == ("head.safetensors: weights differ by 0.25 at most",)


@pytest.mark.req("K57", "J91")
def test_a_page_says_why_a_version_served(history: History) -> None:
    release = history.ports.ledger.version("scout", "1.0.1")
    assert release is not None
    page = explain(history.ports, "scout", "1.0.1", chain=True)
    assert (page.outcome, page.digest) == ("served and was reverted: wrong about sports", release.digest)
    assert page.signature.startswith("verified")
    assert page.trigger is not None
    assert (page.trigger.reason, page.trigger.mode, page.trigger.run_id) == ("correction", "online", "correction-run")
    trained = {task.task: task for task in page.trained}
    news = trained[NEWS]
    assert (news.new, news.base, news.sources["correction"], news.priorities["2"]) == (1, "1.0.0", 1, 1)
    assert news.new + news.replay == sum(news.sources.values()) == sum(news.priorities.values())
    assert trained[MOOD].how == "kept from 1.0.0"
    assert {answer.action for answer in page.gates} == {"pass"}
    assert (page.approval_needed, page.decisions) == (False, ())
    assert [(one.version, one.base) for one in page.chain] == [("1.0.1", "1.0.0"), ("1.0.0", None)]
    (one,) = page.rollouts
    assert (one.state, one.previous) == ("reverted", "1.0.0")
    again = explain(history.ports, "scout")
    assert (again.version, again.outcome) == ("1.0.0", "serves now")
    champion = [period for period in again.periods if period.alias == "champion"]
    assert [(period.actor, period.reason) for period in champion][-1] == ("editor", "wrong about sports")


@pytest.mark.req("K57", "J91")
def test_a_moment_a_reverted_canary_and_a_refused_candidate_are_explained(history: History) -> None:
    ports = history.ports
    page = explain(ports, "scout", at=history.during_canary)
    then = page.moment
    assert then is not None
    assert (page.version, then.champion, then.candidate, then.share) == ("1.0.1", "1.0.1", "1.0.2", 0.05)
    assert then.until is not None
    assert explain(ports, "scout", at=then.until).version == "1.0.0"
    first = ports.ledger.moves("scout", 100)[-1].moved_at
    before = explain(ports, "scout", at=first - timedelta(days=1))
    assert before.version is None
    assert before.moment is not None
    assert before.moment.first is not None
    assert before.moment.first[0] == "1.0.0"

    canary = explain(ports, "scout", "1.0.2")
    assert canary.outcome == "was reverted: too many errors"
    (period,) = canary.periods
    assert (period.alias, [share for _, share in period.shares]) == ("candidate", [0.05, 0.25])

    refused = explain(ports, "scout", str(history.refused.job_id))
    assert (refused.version, refused.gate_action, refused.approval_needed) == (None, "approve", True)
    assert [(one.decision, one.actor, one.comment) for one in refused.decisions] == [("reject", "editor", "not yet")]
    assert refused.outcome.startswith("never released: scout: candidate rejected")
    for subject, message in (("7.7.7", r"no version 7\.7\.7"), (str(uuid4()), "no job")):
        with pytest.raises(RegistryError, match=message):
            explain(ports, "scout", subject)
    with pytest.raises(RegistryError, match="no release"):
        explain(ports, "nobody")


@pytest.mark.req("J87", "K57")
def test_an_example_leads_to_its_versions_and_what_judged_was_never_trained_on(history: History) -> None:
    (corrected,) = _ids(history, "1.0.1")
    used = [(use.version, use.role.value) for use in history.ports.ledger.uses_of_example(corrected)]
    assert used == [("1.0.1", "new"), ("1.0.2", "replay")]  # a correction is replayed ever after
    versions = ("1.0.0", "1.0.1", "1.0.2")
    learned = {one for version in versions for role in (Role.NEW, Role.REPLAY) for one in _ids(history, version, role)}
    judges = {one for version in versions for one in _ids(history, version, Role.HOLDOUT)}
    assert judges
    assert not learned & judges


@pytest.mark.req("K57", "J91")
def test_the_commands_say_it_in_words_without_any_text(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_ports", lambda: history.ports)
    (corrected,) = _ids(history, "1.0.1")
    pages = {
        "explain scout 1.0.1 --chain": (
            "correction-run",
            "PASS",
            "nobody had to",
            "about sports",
            "ancestors",
            "1 new",
        ),
        f"explain scout --at {history.during_canary.isoformat()}": ("candidate 1.0.2 with 5% of the keys",),
        "explain scout --at 2001-01-01": ("nothing; the first version, 1.0.0",),
        f"explain scout {history.refused.job_id} --ids": ("never released", "reject at", "not yet"),
        f"trace {corrected}": ("trained on it (news_classification)", "replayed it (news_classification)"),
        "trace scout 1.0.1": (f"news_classification: new (1) {corrected}", "news_classification: replay (40)"),
        "reproduce scout 1.0.1": ("EQUAL", "kept from 1.0.0"),
    }
    told = ""
    for command, wanted in pages.items():
        done = _run(*command.split())
        assert done.exit_code == 0, done.output
        page = " ".join(done.stdout.split())
        assert [words for words in wanted if words not in page] == [], page
        told += done.stdout
    record = _run("explain", "scout", "1.0.1", "--json").stdout
    assert "ids" not in json.loads(record)["trained"][0]
    missing = _run("reproduce", "scout", "9.9.9", "--json")
    assert (missing.exit_code, json.loads(missing.stdout)["outcome"]) == (2, "impossible")
    assert [entry.action for entry in history.ports.audit.entries("scout", 2)] == ["reproduced", "reproduced"]
    assert _run("trace", "scout").exit_code == 2
    with psycopg.connect(history.database.superuser) as connection:
        texts = connection.execute("SELECT input_text FROM perennial.examples WHERE input_text IS NOT NULL").fetchall()
    assert texts
    whole = " ".join((told + record + missing.stdout).split())
    assert not [text for (text,) in texts if " ".join(text.split()) in whole]


def _run(*arguments: str) -> Result:
    app = typer.Typer()
    provenance.register(app)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "110"})
