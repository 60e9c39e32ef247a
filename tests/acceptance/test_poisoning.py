"""A short form of ``benchmarks/bench_poisoning.py``, and what the screening promises around it, on one in-process deployment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.words import JobStatus
from perennial.flows import train
from perennial.ingest.aside import release_held
from perennial.storage.database import Database as Pool
from tests.acceptance.poisoning import TASK, Attack, Row, found_champion, harm, sent
from tests.postgres_fixture import Database

EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
VICTIM, CLAIMS = EARLY[0], EARLY[1]


def articles(seed: int, count: int, topics: tuple[str, ...] = EARLY) -> list[Row]:
    return [
        Row(text=one.text, label=one.true_topic) for one in NewsStream(seed).articles(count, period=0.3, topics=topics)
    ]


@pytest.mark.req("J49", "J22", "K44")
def test_an_attack_is_bounded_held_back_once_and_left_to_a_person(database: Database, tmp_path: Path) -> None:
    """Ten per cent from twenty new accounts; then the same rows wait, call for nothing, join by their share, or are released."""
    world = found_champion(database, tmp_path, articles(11, 200), holdout=0.25)
    buffer = world.ports.buffer
    first = min(world.ports.ledger.versions("scout"), key=lambda release: release.order)
    assert first.job_id is not None
    assert "first version" in buffer.job(first.job_id).dataset["screening"][TASK]["exempt"][0]

    honest, victims = articles(12, 126), articles(13, 40, (VICTIM,))
    attack = Attack(share=0.1, accounts=20, victim=VICTIM, claims=CLAIMS)
    seen = harm(database, world, honest, victims, articles(14, 200), attack)
    assert seen.flipped_claimed > seen.flipped_trained <= max(seen.claimed * 0.02, 1)
    assert seen.honest_held == 0
    assert seen.slice >= -3.0 or seen.action == "hold"

    _, flipped = sent(database, world, honest, victims, attack)
    ref = world.claim()
    assert ref is not None
    train.validate(world.ports, ref)
    train.redact(world.ports, ref)
    train.select(world.ports, ref)
    left = {row.example_id for row in buffer.claimed_rows(ref.job_id, ref.attempt)}
    record = buffer.job(ref.job_id).dataset["screening"]
    train.select(world.ports, ref)  # killed and run again: the same rows wait, the same is written
    assert {row.example_id for row in buffer.claimed_rows(ref.job_id, ref.attempt)} == left
    assert buffer.job(ref.job_id).dataset["screening"] == record
    held = record[TASK]["held"]["source_cap"]
    assert held == sum(line.rows for line in buffer.held("scout") if line.reason == "source_cap")
    assert "account" not in str(record)  # no sender's name in the record
    buffer.finish(ref.job_id, ref.attempt, JobStatus.CANCELLED)

    asked = world.claim(run_id="again")  # what the other rows call for has room for a few of those that wait
    assert asked is not None
    train.select(world.ports, asked)
    back = {row.example_id for row in buffer.claimed_rows(asked.job_id, asked.attempt)} & flipped
    assert 0 < len(back) <= asked.count * 0.02
    buffer.finish(asked.job_id, asked.attempt, JobStatus.CANCELLED)

    waiting = sum(line.rows for line in buffer.held("scout"))
    assert release_held(Pool(database.app), "scout", "editor") == waiting > 0
    freed = world.claim(run_id="freed")
    assert freed is not None
    before = {row.example_id for row in buffer.claimed_rows(freed.job_id, freed.attempt)} & flipped
    train.select(world.ports, freed)
    after = {row.example_id for row in buffer.claimed_rows(freed.job_id, freed.attempt)} & flipped
    assert after == before > back  # a person let them through; the gate still judges


@pytest.mark.req("J49")
def test_rows_beyond_their_share_are_kept_out_of_the_measurement_too(database: Database, tmp_path: Path) -> None:
    """An attacker whose rows fall into the holdout would otherwise confirm what his other rows teach."""
    world = found_champion(database, tmp_path, articles(21, 160), holdout=0.4)
    attack = Attack(share=0.4, accounts=20, victim=VICTIM, claims=CLAIMS)
    _, flipped = sent(database, world, articles(22, 90), articles(23, 60, (VICTIM,)), attack)
    ref = world.claim()
    assert ref is not None
    train.select(world.ports, ref)
    space = world.ports.work / str(ref.job_id) / str(ref.attempt)
    measured = {row["example_id"] for row in json.loads((space / TASK / "holdout.json").read_text())}
    entered = world.ports.buffer.holdout("scout", TASK, datetime.now(UTC) + timedelta(minutes=1), 400)
    inside = {str(row.example_id) for row in entered} & {str(identity) for identity in flipped}
    assert len(inside) > len(entered) * 0.02
    assert len(measured & inside) <= len(entered) * 0.02
    left_out = json.loads((space / "select.json").read_text())["screening"][TASK]["holdout_left_out"]
    assert left_out >= len(inside) - len(measured & inside) > 0
