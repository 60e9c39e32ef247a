"""Releases are made again byte by byte, explained on one page, and followed from an example to every version that it touched."""

from __future__ import annotations

import json
import sys
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
from perennial.domain.words import Mode, Priority, Reason, Source
from perennial.errors import RegistryError
from perennial.flows import rollback, rollout, train
from perennial.flows.explain import explain
from perennial.flows.reproduce import Outcome, Reproduction, reproduce
from perennial.registry.recipe import Role
from perennial.storage.embeddings import PostgresEmbeddings
from tests.acceptance.world import World
from tests.postgres_fixture import Database

NEWS, MOOD = "news_classification", "sentiment"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)


def example(task: str, text: str, label: str, **more: Any) -> Example:
    """One row for the buffer."""
    return Example(
        agent="scout", task=task, input_text=text, expected_output=label, uncertainty=0.5, source_id="t",
        example_id=uuid4(), **more,
    )  # fmt: skip


@pytest.fixture
def history(world: World) -> World:
    """Three releases: a first one of both tasks, a correction through the fast lane, and a batch of new rows."""
    stream = NewsStream(5)
    rows = stream.articles(240, period=0.0, topics=EARLY)
    buffer = world.ports.buffer
    buffer.add_many([example(NEWS, row.text, row.true_topic) for row in rows])
    buffer.add_many([example(MOOD, row.text, row.sentiment) for row in rows])
    world.train_once()
    world.promote()
    buffer.add(_correction(world, stream))
    ref = world.claim(reason=Reason.CORRECTION)
    assert ref is not None
    assert ref.urgent
    world.release(ref, train.fast_lane(world.ports, ref))
    world.promote()
    buffer.add_many([example(NEWS, row.text, row.true_topic) for row in stream.articles(30, period=0.2, topics=EARLY)])
    world.train_once(reason=Reason.THRESHOLD)
    assert [row.version for row in world.ports.ledger.versions("scout")] == ["1.0.2", "1.0.1", "1.0.0"]
    return world


def _correction(world: World, stream: NewsStream) -> Example:
    models = rollout.predictors(world.ports, world.ports.fleet().agent("scout"), "1.0.0")
    rows = stream.articles(200, period=0.9, topics=EARLY)
    answers = models[NEWS].predict([row.text for row in rows])
    text, label = next(
        (row.text, row.true_topic) for row, answer in zip(rows, answers, strict=True) if answer.output != row.true_topic
    )
    return example(NEWS, text, label, priority=Priority.HIGH, source=Source.CORRECTION, importance=1.0)


def _ids(world: World, version: str, role: Role = Role.NEW) -> list[UUID]:
    uses = world.ports.ledger.examples_of_version("scout", version)
    return [use.example_id for use in uses if use.role is role]


def _sql(database: Database, statement: str, *values: object) -> None:
    with psycopg.connect(database.superuser) as connection:
        assert connection.execute(statement, values).rowcount > 0  # type: ignore[arg-type]


def _reproduced(world: World, version: str) -> Reproduction:
    return reproduce(world.ports, "scout", version)


@pytest.mark.req("K57", "J91", "J87")
def test_every_release_is_made_again_and_a_changed_or_purged_row_is_named(
    history: World, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        found = _reproduced(history, version)
        release = history.ports.ledger.version("scout", version)
        assert release is not None
        assert (found.outcome, found.exit_code) == (Outcome.EQUAL, 0), found.reasons
        assert found.found == found.recorded == release.manifest["content_digest"]
    assert {task.task: task.how for task in found.tasks} == {MOOD: "kept from 1.0.1", NEWS: "trained"}
    assert all(task.equal for task in found.tasks)

    fresh, replayed = _ids(history, "1.0.2")[0], _ids(history, "1.0.2", Role.REPLAY)[0]
    _sql(database, "UPDATE perennial.examples SET expected_output = '\"other\"' WHERE example_id = %s", fresh)
    found = _reproduced(history, "1.0.2")
    assert (found.outcome, found.exit_code, found.found) == (Outcome.DIFFERENT, 1, None)
    assert [str(fresh) in reason and "changed" in reason for reason in found.reasons] == [True]
    assert {task.task: task.equal for task in found.tasks} == {MOOD: True, NEWS: None}

    _sql(
        database, "UPDATE perennial.examples SET state = 'purged', input_text = NULL WHERE example_id = %s", replayed
    )  # fmt: skip
    found = _reproduced(history, "1.0.2")
    assert (found.outcome, found.exit_code) == (Outcome.IMPOSSIBLE, 2)
    assert found.reasons == (f"{NEWS}: 1 row is purged: {replayed}",)
    _sql(database, "DELETE FROM perennial.examples WHERE example_id = %s", replayed)
    assert "not in the buffer" in _reproduced(history, "1.0.2").reasons[0]
    assert _reproduced(history, "9.9.9").exit_code == 2
    _no_texts(history, database, capsys.readouterr().out)


def _no_texts(world: World, database: Database, printed: str) -> None:
    """What the commands say holds no text of any example."""
    with psycopg.connect(database.superuser) as connection:
        texts = [
            row[0]
            for row in connection.execute("SELECT input_text FROM perennial.examples WHERE input_text IS NOT NULL")
        ]
    pages = printed + json.dumps(explain(world.ports, "scout", "1.0.0", chain=True).as_dict(), default=str)
    pages += json.dumps(_reproduced(world, "1.0.1").as_dict())
    assert texts
    assert not [text for text in texts if text in pages]


@pytest.mark.req("K57")
def test_a_difference_is_explained(history: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another environment gives other weights here; every cause that can be known is told, and the cache is not trusted."""
    flow = sys.modules["perennial.flows.reproduce"]
    genuine = flow._train

    def other(ports: Any, manifest: Any, task: str, wanted: Any, check: Any, out: Any, bench: Any) -> None:
        genuine(ports, manifest, task, wanted, check, out, bench)
        if bench.embeddings is None:  # as when a machine rounds otherwise than the one that filled the cache
            import numpy as np
            from safetensors.numpy import load_file, save_file

            weights = load_file(out / "head.safetensors")
            save_file({name: value + np.float32(1e-3) for name, value in weights.items()}, out / "head.safetensors")

    monkeypatch.setattr(flow, "_train", other)
    monkeypatch.setattr(flow, "machine", lambda: {"processor": "another", "system": "s", "python": "p"})
    monkeypatch.setattr(flow, "code_digest", lambda: "0" * 64)
    monkeypatch.setattr(flow, "environment", lambda: {"numpy": "0.1"})
    assert isinstance(history.ports.embeddings, PostgresEmbeddings)
    found = _reproduced(history, "1.0.1")
    assert found.outcome is Outcome.DIFFERENT
    told = "\n".join(found.reasons)
    for cause in (
        "with the embeddings that the deployment keeps",
        "other machine: processor",
        "library: numpy",
        "other code",
    ):
        assert cause in told
    changed = next(task for task in found.tasks if task.task == NEWS)
    assert changed.differences == ("head.safetensors: weights differ by 0.001 at most",)


@pytest.mark.req("K57", "J91")
def test_one_page_says_why_a_version_served(history: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = history.ports
    release = ports.ledger.version("scout", "1.0.1")
    assert release is not None
    page = explain(ports, "scout", "1.0.1", chain=True)
    assert (page.outcome, page.digest) == ("serves now", release.digest)
    assert page.signature.startswith("verified")
    assert page.trigger is not None
    assert (page.trigger.reason, page.trigger.mode, page.trigger.run_id) == ("correction", "online", "run-3")
    (news,) = [task for task in page.trained if task.task == NEWS]
    assert (news.new, news.base, news.sources["correction"], news.priorities["2"]) == (1, "1.0.0", 1, 1)
    assert news.replay == sum(news.sources.values()) - 1
    assert [task.how for task in page.trained if task.task == MOOD] == ["kept from 1.0.0"]
    assert {answer.action for answer in page.gates} == {"pass"}
    assert (page.approval_needed, page.decisions) == (False, ())
    assert [(one.version, one.base) for one in page.chain] == [("1.0.1", "1.0.0"), ("1.0.0", None)]
    (one,) = page.rollouts
    assert (one.state, one.previous, one.run_id) == ("baking", "1.0.0", "rollout-4")

    first = ports.ledger.moves("scout")[-1].moved_at
    before = explain(ports, "scout", at=first - timedelta(days=1))
    assert before.version is None
    assert before.moment is not None
    assert before.moment.first is not None
    assert before.moment.first[0] == "1.0.0"
    served = [period for period in explain(ports, "scout", "1.0.0").periods if period.alias == "champion"]
    then = explain(ports, "scout", at=served[0].since)
    assert (then.version, then.outcome) == ("1.0.0", "was superseded: 1.0.1 serves now") or then.version == "1.0.0"
    assert then.moment is not None
    assert then.moment.until == served[0].until != None  # noqa: E711
    with pytest.raises(RegistryError, match=r"no version 7\.7\.7"):
        explain(ports, "scout", "7.7.7")
    with pytest.raises(RegistryError, match="no release"):
        explain(ports, "nobody")
    with pytest.raises(RegistryError, match="no job"):
        explain(ports, "scout", str(uuid4()))

    rollback.rollback_agent(ports, "scout", actor="editor", reason="wrong about sports")
    reverted = explain(ports, "scout", "1.0.1")
    assert reverted.outcome == "served and was reverted: wrong about sports"
    again = explain(ports, "scout")
    assert (again.version, again.outcome) == ("1.0.0", "serves now")
    assert again.periods[-1].actor == "editor"

    monkeypatch.setattr(provenance, "_ports", lambda: ports)
    told = _run("explain", "scout", "1.0.1", "--chain").stdout
    for needed in ("correction", "run-3", "PASS", "nobody had to", "wrong about sports", "ancestors", "1 new"):
        assert needed in " ".join(told.split())
    told = _run("explain", "scout", "--at", (first - timedelta(days=1)).isoformat()).stdout
    assert "nothing; the first version, 1.0.0" in " ".join(told.split())
    record = json.loads(_run("explain", "scout", "1.0.1", "--json").stdout)
    assert "ids" not in record["trained"][0]


@pytest.mark.req("J91")
def test_a_canary_share_on_a_past_moment_and_a_refused_candidate_are_explained(history: World) -> None:
    ports = history.ports
    ref = rollout.verify(ports, "scout", "rollout-canary")
    assert ref is not None
    rollout.shadow(ports, ref)
    rollout.begin_step(ports, ref, 0)
    during = datetime.now(UTC)
    rollout.begin_step(ports, ref, 1)
    then = explain(ports, "scout", at=during).moment
    assert then is not None
    assert (then.champion, then.candidate, then.share) == ("1.0.1", "1.0.2", 0.05)
    rollout.revert(ports, ref, "too many errors")
    page = explain(ports, "scout", "1.0.2")
    assert page.outcome == "was reverted: too many errors"
    (period,) = page.periods
    assert (period.alias, [share for _, share in period.shares]) == ("candidate", [0.05, 0.25])

    rows = NewsStream(9).articles(120, period=0.1, topics=EARLY[:1])
    ports.buffer.add_many([example(NEWS, row.text, EARLY[1]) for row in rows])
    claimed = history.claim(reason=Reason.THRESHOLD)
    assert claimed is not None
    verdict = history.learn(claimed)
    assert verdict["action"] == "hold", verdict["summary"]
    history.release(claimed, verdict)
    refused = explain(ports, "scout", str(claimed.job_id))
    assert (refused.version, refused.gate_action) == (None, "hold")
    assert refused.outcome.startswith("never released: scout: candidate held")


@pytest.mark.req("J87", "K57")
def test_an_example_leads_to_its_versions_and_a_version_to_its_examples(
    history: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = history.ports
    (corrected,) = _ids(history, "1.0.1")
    used = [(use.version, use.role.value) for use in ports.ledger.uses_of_example(corrected)]
    assert used == [("1.0.1", "new"), ("1.0.2", "replay")]  # a correction is replayed ever after
    judges = _ids(history, "1.0.2", Role.HOLDOUT)
    learned = {
        *_ids(history, "1.0.0"),
        *_ids(history, "1.0.1"),
        *_ids(history, "1.0.2"),
        *_ids(history, "1.0.2", Role.REPLAY),
    }
    assert judges
    assert not learned & set(judges)  # what judged was never trained on

    monkeypatch.setattr(provenance, "_ports", lambda: ports)
    told = " ".join(_run("trace", str(corrected)).stdout.split())
    assert "trained on it (news_classification)" in told
    assert "replayed it (news_classification)" in told
    assert len(json.loads(_run("trace", "scout", "1.0.1", "--json").stdout)) == len(
        ports.ledger.examples_of_version("scout", "1.0.1")
    )
    assert _run("trace", "scout").exit_code == 2
    _sql(database, "DELETE FROM perennial.examples WHERE example_id = %s", corrected)
    assert "not in the buffer any more" in _run("trace", str(corrected)).stdout


@pytest.mark.req("K57")
def test_reproduce_answers_with_its_exit_code(history: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_ports", lambda: history.ports)
    done = _run("reproduce", "scout", "1.0.1")
    assert done.exit_code == 0, done.output
    assert "EQUAL" in done.stdout
    missing = _run("reproduce", "scout", "9.9.9", "--json")
    assert missing.exit_code == 2
    assert json.loads(missing.stdout)["outcome"] == "impossible"
    assert [entry.action for entry in history.ports.audit.entries("scout", 2)] == ["reproduced", "reproduced"]


def _run(*arguments: str) -> Result:
    app = typer.Typer()
    provenance.register(app)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.req("K57")
def test_a_batch_training_is_made_again_with_its_encoder(history: World) -> None:
    stream = NewsStream(11)
    rows = stream.articles(30, period=0.3, topics=EARLY)
    history.ports.buffer.add_many([example(NEWS, row.text, row.true_topic) for row in rows])
    _, settled = history.train_once(mode=Mode.BATCH)
    assert settled["version"] == "1.1.0", settled
    found = _reproduced(history, "1.1.0")
    assert found.outcome is Outcome.EQUAL, found.reasons
