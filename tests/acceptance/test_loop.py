"""The whole loop over real PostgreSQL, real models and real signatures, without Airflow: what the tasks call, in their order."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.example import Example
from perennial.domain.words import Mode, Priority, Reason, ReportKind, Source
from perennial.errors import PromotionRefused, StaleClaim, UntrustedBundle
from perennial.flows import rollback, rollout, train, watch
from perennial.flows.champion import bundle_folder
from perennial.registry.rows import Alias
from perennial.rollout.rows import Report
from tests.acceptance.world import World, rewind

TASK = "news_classification"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
stream = NewsStream(5)


@pytest.fixture(autouse=True)
def same_articles_for_each_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "stream", NewsStream(5))


def example(
    text: str, label: str, *, priority: int = 0, source: Source = Source.EXAMPLE, source_id: str = "t"
) -> Example:
    """One row for the buffer."""
    return Example(
        agent="scout", task=TASK, input_text=text, expected_output=label, uncertainty=0.5, priority=Priority(priority),
        source=source, source_id=source_id, example_id=uuid4(), importance=1.0 if source is Source.CORRECTION else 0.5,
    )  # fmt: skip


def seed(world: World, count: int = 260) -> None:
    """A start set of the early topics."""
    rows = stream.articles(count, period=0.0, topics=EARLY)
    world.ports.buffer.add_many([example(row.text, row.true_topic) for row in rows])


def first_champion(world: World) -> str:
    """Bring the deployment to its first serving version."""
    seed(world)
    world.train_once()
    world.promote()
    champion = world.ports.ledger.champion("scout")
    assert champion is not None
    return champion


@pytest.mark.req("D7", "D9", "K76", "K30", "K59", "J47", "J48", "K40", "J91")
def test_from_rows_to_a_signed_champion_and_back(world: World) -> None:
    """Bootstrap, a correction as a patch, and a rollback to byte-identical files."""
    assert first_champion(world) == "1.0.0"
    folder = world.ports.targets["folder"]
    before = folder.digest("scout")
    wrong = _wrongly_answered(world)
    world.ports.buffer.add(example(*wrong, priority=2, source=Source.CORRECTION))
    assert world.ports.buffer.due("scout").reason is Reason.CORRECTION
    verdict, settled = world.train_once(reason=Reason.CORRECTION)
    assert verdict["action"] == "pass", verdict["summary"]
    assert settled["version"] == "1.0.1"
    world.promote()
    assert world.ports.ledger.champion("scout") == "1.0.1"
    assert _answer(world, wrong[0]) == wrong[1]
    assert not world.ports.buffer.due("scout").due
    result = rollback.rollback_agent(world.ports, "scout", actor="editor", reason="test")
    assert (result["from"], result["to"]) == ("1.0.1", "1.0.0")
    assert folder.digest("scout") == before
    history = world.ports.buffer.performance("scout", 10)
    flagged = [row.version for row in history if row.rollback_triggered]
    assert flagged == ["1.0.1"]  # the bad version, not its good predecessor


def _correct(world: World, text: str, label: str) -> str:
    """One urgent correction through a whole training; the version that it made."""
    world.ports.buffer.add(example(text, label, priority=2, source=Source.CORRECTION))
    verdict, settled = world.train_once(reason=Reason.CORRECTION)
    assert verdict["action"] == "pass", verdict["summary"]
    return str(settled["version"])


def _to_canary(world: World) -> dict[str, Any]:
    world.runs += 1
    ref = rollout.verify(world.ports, "scout", f"rollout-{world.runs}")
    assert ref is not None
    rollout.shadow(world.ports, ref)
    assert rollout.begin_step(world.ports, ref, 0)["action"] == "hold"
    return ref


def _five_people_report(world: World, version: str) -> list[dict[str, Any]]:
    for number in range(5):
        world.ports.rollouts.report(
            Report(
                report_id=uuid4(), agent="scout", kind=ReportKind.WRONG, reporter=bytes([number]), version=version
            )
        )  # fmt: skip
    return watch.look(world.ports)


@pytest.mark.req("K39", "K40", "J48", "J91")
def test_corrections_come_while_a_bake_and_a_canary_run_and_all_of_them_stick(world: World) -> None:
    """A bakes, B is in canary, C supersedes B and answers all three; bad bakes go back to what was there, never to a bad one."""
    ports = world.ports
    assert first_champion(world) == "1.0.0"
    digest = ports.targets["folder"].digest("scout")
    first = _wrongly_answered(world)
    assert _correct(world, *first) == "1.0.1"
    baking = _to_canary(world)
    rollout.full(ports, baking)
    assert [row.version for row in ports.rollouts.baking()] == ["1.0.1"]
    second = _wrongly_answered(world)
    assert _correct(world, *second) == "1.0.2"
    canary = _to_canary(world)
    assert ports.rollouts.get(canary["rollout_id"]).previous == "1.0.1"
    third = _wrongly_answered(world)
    assert _correct(world, *third) == "1.0.3"
    released = ports.ledger.version("scout", "1.0.3")
    assert released is not None
    assert released.base_version == "1.0.1"
    newest = _to_canary(world)
    assert rollout.look(ports, canary, 0)["action"] == "superseded"
    serving = ports.rollouts.serving("scout")
    assert (serving.champion, serving.candidate, serving.previous) == ("1.0.1", "1.0.3", "1.0.0")
    assert [row.version for row in ports.rollouts.baking()] == ["1.0.1"]

    (said,) = _five_people_report(world, "1.0.1")
    assert (said["version"], said["action"]) == ("1.0.1", "rollback")
    serving = ports.rollouts.serving("scout")
    assert (serving.champion, serving.candidate) == ("1.0.0", "1.0.3")
    assert ports.targets["folder"].digest("scout") == digest

    rollout.full(ports, newest)
    assert {_answer(world, text) == label for text, label in (first, second, third)} == {True}
    row = ports.rollouts.get(newest["rollout_id"])
    assert (row.previous, ports.rollouts.previous_champion("scout")) == ("1.0.0", "1.0.0")

    (said,) = _five_people_report(world, "1.0.3")
    assert (said["version"], said["action"]) == ("1.0.3", "rollback")
    assert (ports.ledger.champion("scout"), ports.ledger.candidate("scout")) == ("1.0.0", None)
    assert ports.targets["folder"].digest("scout") == digest
    moves = [move.version for move in reversed(ports.ledger.moves("scout")) if move.alias is Alias.CHAMPION]
    assert moves == ["1.0.0", "1.0.1", "1.0.0", "1.0.3", "1.0.0"]


@pytest.mark.req("J49", "J22", "K44")
def test_a_poisoned_batch_is_held_given_back_and_after_two_refusals_waits_for_a_person(world: World) -> None:
    champion = first_champion(world)
    poison = stream.articles(90, period=0.1, topics=(EARLY[0],))
    honest = stream.articles(40, period=0.1, topics=EARLY)
    world.ports.buffer.add_many(
        [example(row.text, EARLY[1], source_id="intern") for row in poison]
        + [example(row.text, row.true_topic) for row in honest]
    )
    for _ in range(2):
        ref = world.claim(reason=Reason.THRESHOLD)
        assert ref is not None
        verdict = world.learn(ref)
        assert verdict["action"] == "hold", verdict["summary"]
        with pytest.raises(PromotionRefused, match="holds"):
            train.register(world.ports, ref)
        world.release(ref, verdict)
    assert world.ports.ledger.champion("scout") == champion
    counts = world.ports.buffer.counts("scout")
    assert counts[(TASK, "held")] > 40
    assert not world.ports.buffer.due("scout").due


@pytest.mark.req("K36", "K82", "J54")
def test_a_new_topic_is_a_major_version_and_waits_for_a_person(world: World) -> None:
    first_champion(world)
    rows = stream.articles(60, period=0.5, topics=(LATE_TOPIC,))
    others = stream.articles(30, period=0.5, topics=EARLY)
    world.ports.buffer.add_many([example(row.text, row.true_topic) for row in (*rows, *others)])
    ref = world.claim(reason=Reason.THRESHOLD)
    assert ref is not None
    verdict = world.learn(ref)
    assert (verdict["action"], verdict["major"]) == ("approve", True), verdict["summary"]
    with pytest.raises(PromotionRefused, match="approve"):
        train.register(world.ports, ref)
    train.record_decision(world.ports, ref, False, "editor", "not yet")
    with pytest.raises(PromotionRefused):
        train.register(world.ports, ref)
    train.record_decision(world.ports, ref, True, "editor", "now")
    assert train.register(world.ports, ref)["version"] == "2.0.0"


@pytest.mark.req("D10", "J74")
def test_every_step_may_be_repeated_and_a_zombie_changes_nothing(world: World) -> None:
    seed(world)
    ref = world.claim(run_id="run-a")
    assert ref is not None
    again = train.claim(world.ports, _request("run-a"))
    assert again is not None
    assert (again.job_id, again.attempt, again.count) == (ref.job_id, ref.attempt + 1, ref.count)
    with pytest.raises(StaleClaim):
        train.validate(world.ports, rewind(again))
    assert train.claim(world.ports, _request("run-b")) is None  # one training per agent at a time
    verdict = world.learn(again)
    world.learn(again)
    assert verdict["action"] in {"pass", "approve"}
    if verdict["action"] == "approve":
        train.record_decision(world.ports, again, True, "editor", "")
    first = train.register(world.ports, again)
    assert train.register(world.ports, again)["digest"] == first["digest"]
    assert (
        train.settle(world.ports, again, "registered")["note"] == train.settle(world.ports, again, "registered")["note"]
    )
    assert len(world.ports.ledger.versions("scout")) == 1
    trained = sum(count for (_, state), count in world.ports.buffer.counts("scout").items() if state == "trained")
    assert trained == again.count


@pytest.mark.req("K69")
def test_a_tampered_bundle_is_refused_and_the_champion_keeps_serving(world: World) -> None:
    champion = first_champion(world)
    wrong = _wrongly_answered(world)
    world.ports.buffer.add(example(*wrong, priority=2, source=Source.CORRECTION))
    world.train_once(reason=Reason.CORRECTION)
    stored = next(
        path for path in (Path(world.ports.settings.home) / "models").rglob("*.safetensors") if "1.0.1" in str(path)
    )
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(bytes(data))
    with pytest.raises(UntrustedBundle):
        rollout.verify(world.ports, "scout", "rollout-tampered")
    assert world.ports.ledger.champion("scout") == champion
    assert world.ports.rollouts.serving("scout").candidate is None


@pytest.mark.req("K2")
def test_the_same_rows_make_the_same_bytes(world: World) -> None:
    seed(world)
    ref = world.claim()
    assert ref is not None
    world.learn(ref)
    space = world.ports.work / str(ref.job_id) / str(ref.attempt) / "candidate" / "tasks"
    first = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in space.rglob("*.safetensors")}
    again = train.claim(world.ports, _request("run-1"))
    assert again is not None
    world.learn(again)
    space = world.ports.work / str(again.job_id) / str(again.attempt) / "candidate" / "tasks"
    assert first == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in space.rglob("*.safetensors")}


@pytest.mark.req("K41", "K45", "J42", "J43")
def test_a_batch_training_moves_the_encoder_under_its_penalty_and_is_a_minor_version(world: World) -> None:
    first_champion(world)
    rows = stream.articles(40, period=0.3, topics=EARLY)
    world.ports.buffer.add_many([example(row.text, row.true_topic) for row in rows])
    ref = world.claim(mode=Mode.BATCH)
    assert ref is not None
    verdict = world.learn(ref)
    settled = world.release(ref, verdict, approve="editor" if verdict["action"] == "approve" else None)
    if verdict["action"] == "hold":
        pytest.fail(f"an honest batch was held: {verdict['summary']}")
    assert settled["version"] == "1.1.0"
    folder = bundle_folder(world.ports, "scout", "1.1.0") / "tasks" / TASK
    old = bundle_folder(world.ports, "scout", "1.0.0") / "tasks" / TASK
    encoders = [json.loads((path / "component.json").read_text())["encoder"]["digest"] for path in (folder, old)]
    assert encoders[0] != encoders[1]


def _request(run_id: str):  # type: ignore[no-untyped-def]
    from perennial.domain.job import JobRequest

    return JobRequest(agent="scout", run_id=run_id, reason=Reason.REQUEST)


def _answer(world: World, text: str) -> str:
    champion = world.ports.ledger.champion("scout")
    assert champion is not None
    models = rollout.predictors(world.ports, world.ports.fleet().agent("scout"), champion)
    return str(models[TASK].predict([text])[0].output)


def _wrongly_answered(world: World) -> tuple[str, str]:
    """A text that the champion answers wrong, with its true label."""
    champion = world.ports.ledger.champion("scout")
    assert champion is not None
    models = rollout.predictors(world.ports, world.ports.fleet().agent("scout"), champion)
    rows = stream.articles(200, period=0.9, topics=EARLY)
    answers = models[TASK].predict([row.text for row in rows])
    return next(
        (row.text, row.true_topic) for row, answer in zip(rows, answers, strict=True) if answer.output != row.true_topic
    )
