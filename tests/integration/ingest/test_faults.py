"""What the buffer keeps when things break: killed servers, killed readers, many writers at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Priority, Source
from perennial.errors import StoreUnavailable
from perennial.events.drop_folder import DropFolder
from perennial.events.source import Batch, PositionOf
from perennial.ingest.admit import Admission, Admitted
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.drain import drain
from perennial.storage.database import Database
from tests.postgres_fixture import Database as Urls

TASK = "sentiment"


def record(most: int = 1_000_000, threshold: int = 50) -> dict[str, Any]:
    task = {"task": TASK, "kind": "classification", "labels": None, "max_length": 20_000, "aliases": []}
    return {
        "agent": "scout", "record": {}, "file_digest": "", "update_threshold": threshold, "max_buffer_size": most,
        "holdout_share": 0.1, "tasks": [task],
    }  # fmt: skip


def example(text: str, **fields: Any) -> Example:
    return Example(agent="scout", task=TASK, input_text=text, expected_output="good", uncertainty=0.5, **fields)


@pytest.fixture
def buffer(database: Urls) -> Iterator[PostgresBuffer]:
    pool = Database(database.app, max_size=10, wait_seconds=60)
    made = PostgresBuffer(pool)
    made.sync_agents([record()])
    yield made
    pool.close()


def stored(urls: Urls) -> tuple[set[UUID], int]:
    """Ids in the buffer that have their original, and the number of rows."""
    with Database(urls.admit).connection() as connection:
        rows = connection.execute(
            "SELECT example_id FROM perennial.examples JOIN perennial.originals USING (example_id)"
        ).fetchall()
        total = connection.execute("SELECT count(*) AS n FROM perennial.examples").fetchone()
    assert total is not None
    return {row["example_id"] for row in rows}, int(total["n"])


@pytest.mark.req("J80", "J81")
def test_64_writers_lose_nothing_and_double_nothing(database: Urls, buffer: PostgresBuffer) -> None:
    sent = [[example(f"writer {writer} row {number}") for number in range(10)] for writer in range(64)]
    shared = [example(f"shared {number}") for number in range(20)]  # every writer sends these too, in its own order
    added: list[int] = []

    def write(writer: int) -> None:
        for one in sent[writer]:
            added.append(buffer.add(one).added)
        order = shared if writer % 2 else shared[::-1]
        added.append(buffer.add_many(order).added)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids, total = stored(database)
    assert ids == {one.example_id for rows in (*sent, shared) for one in rows}
    assert total == len(ids) == sum(added) == 660
    assert buffer.counters()["scout"]["duplicates"] == 63 * 20
    assert buffer._database.statistics()["total_connections"] <= 10


def test_a_full_buffer_under_64_writers_ends_at_its_limit(database: Urls, buffer: PostgresBuffer) -> None:
    buffer.sync_agents([record(most=100)])
    threads = [
        threading.Thread(target=lambda w=writer: [buffer.add(example(f"{w} {n}")) for n in range(8)])  # type: ignore[misc]
        for writer in range(64)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.add(example("the last"))
    assert buffer.waiting() == {"scout": 100}
    assert buffer.counters()["scout"]["evicted"] == 64 * 8 + 1 - 100


def test_a_large_full_buffer_is_not_counted_for_every_row(database: Urls, buffer: PostgresBuffer) -> None:
    buffer.sync_agents([record(most=10_000)])
    assert buffer.add_many([example(f"text {n}") for n in range(10_005)]).evicted == 15
    assert buffer.waiting() == {"scout": 9_990}
    assert sum(buffer.add(example(f"more {n}")).evicted for n in range(10)) == 0
    assert buffer.add(example("one too many")).evicted == 11


@pytest.mark.req("J5", "J82")
def test_a_server_killed_under_load_loses_no_acknowledged_row(database: Urls, buffer: PostgresBuffer) -> None:
    acknowledged: set[UUID] = set()
    refused = 0
    stop = threading.Event()

    def write(writer: int) -> None:
        nonlocal refused
        number = 0
        while not stop.is_set():
            number += 1
            rows = [example(f"{writer} {number} {index}") for index in range(1 + 30 * (writer % 2))]
            for _attempt in range(100):
                try:
                    result = buffer.add_many(rows)
                except StoreUnavailable:
                    refused += 1
                    time.sleep(0.05)
                    continue
                assert result.added + result.duplicates == len(rows)
                acknowledged.update(result.ids)
                break

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
    for thread in threads:
        thread.start()
    for _kill in range(3):
        time.sleep(1.0)
        database.server.kill()
        time.sleep(0.2)
        database.server.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    ids, total = stored(database)
    assert refused > 0
    assert len(acknowledged) > 100
    assert acknowledged - ids == set()
    assert total == len(ids)
    with Database(database.app).connection() as connection:
        announced = connection.execute(
            "SELECT jsonb_array_elements_text(payload -> 'example_ids') AS id FROM perennial.outbox"
        ).fetchall()
    assert sorted(row["id"] for row in announced) == sorted(map(str, ids))


def test_an_absent_server_is_said_and_nothing_is_acknowledged(database: Urls, buffer: PostgresBuffer) -> None:
    one = example("while it is away")
    database.server.kill()
    try:
        away = PostgresBuffer(Database(database.app, wait_seconds=1.0))
        with pytest.raises(StoreUnavailable, match="try again"):
            away.add(one)
    finally:
        database.server.start()
    assert buffer.add(one).added == 1
    assert buffer.add(one).added == 0


class Killed(DropFolder):
    """A folder whose reader dies by its own hand after some batches, between storing and settling."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder, quiet_seconds=0)
        self.left = after

    def settle(self, batch: Batch) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().settle(batch)

    def poll(self, position_of: PositionOf, *, size: int = 1000) -> Iterator[Batch]:
        return super().poll(position_of, size=size)


def _drain_and_die(url: str, folder: Path, after: int) -> None:
    drain(Killed(folder, after), PostgresBuffer(Database(url)), size=10)


@pytest.mark.req("D10")
def test_a_reader_killed_in_the_middle_of_a_file_goes_on_at_the_next_line(
    database: Urls, buffer: PostgresBuffer, tmp_path: Path
) -> None:
    lines = [json.dumps({"agent": "scout", "task": TASK, "text": f"text {n}", "label": "good"}) for n in range(45)]
    lines[7], lines[23] = '{"agent": "scout"', json.dumps({"agent": "scout", "task": TASK, "text": " "})
    (tmp_path / "news.jsonl").write_text("\n".join(lines))
    context = multiprocessing.get_context("spawn")
    for after in (1, 2):
        reader = context.Process(target=_drain_and_die, args=(database.app, tmp_path, after))
        reader.start()
        reader.join()
        assert reader.exitcode == -signal.SIGKILL
        assert (tmp_path / "news.jsonl").exists()
    assert sum(buffer.counts("scout").values()) == 28  # of the first 30 lines two are broken
    result = drain(DropFolder(tmp_path, quiet_seconds=0), buffer, size=10)
    assert (result.added, result.rejected, result.parts) == (15, 0, 1)
    ids, total = stored(database)
    assert total == len(ids) == 43
    with Database(database.app).connection() as connection:
        rejected = connection.execute(
            "SELECT position, field, reason FROM perennial.rejected ORDER BY position"
        ).fetchall()
    assert [(row["position"], row["field"]) for row in rejected] == [(8, "record"), (24, "input_text")]
    assert "line 8" in rejected[0]["reason"]
    assert drain(DropFolder(tmp_path, quiet_seconds=0), buffer).as_dict()["added"] == 0
    assert [path.name for path in (tmp_path / "done").iterdir()] == ["news.jsonl"]


def test_two_readers_of_one_folder_store_each_line_once(database: Urls, buffer: PostgresBuffer, tmp_path: Path) -> None:
    for file in range(4):
        lines = [{"agent": "scout", "task": TASK, "text": f"{file} {n}", "label": "good"} for n in range(60)]
        (tmp_path / f"{file}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    results: list[int] = []
    readers = [
        threading.Thread(
            target=lambda: results.append(drain(DropFolder(tmp_path, quiet_seconds=0), buffer, size=7).added)
        )
        for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sum(results) == 240
    assert len(stored(database)[0]) == 240
    assert len(list((tmp_path / "done").iterdir())) == 4


def admit_all(urls: Urls) -> None:
    Admission(Database(urls.admit)).run(
        "scout", lambda task, text, label, note: Admitted(text=text, expected_output=label, feedback=note)
    )


def _admit_and_die(url: str, after: int) -> None:
    seen = 0

    def examine(task: str, text: str, label: Any, note: str | None) -> Admitted:
        nonlocal seen
        seen += 1
        if seen == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return Admitted(text=text.upper(), expected_output=label, feedback=note)

    Admission(Database(url), batch=10).run("scout", examine)


@pytest.mark.req("D10")
def test_an_admission_killed_in_the_middle_loses_and_repeats_nothing(database: Urls, buffer: PostgresBuffer) -> None:
    buffer.sync_agents([{**record(), "holdout_share": 0.0}])
    buffer.add_many([example(f"text {n}") for n in range(40)])
    context = multiprocessing.get_context("spawn")
    admission = context.Process(target=_admit_and_die, args=(database.admit, 25))
    admission.start()
    admission.join()
    assert admission.exitcode == -signal.SIGKILL
    assert buffer.counts("scout") == {(TASK, "ready"): 20, (TASK, "raw"): 20}
    admit_all(database)
    assert buffer.counts("scout") == {(TASK, "ready"): 40}


@pytest.mark.req("J33")
def test_ten_corrections_at_once_are_all_claimed_by_the_next_training(database: Urls, buffer: PostgresBuffer) -> None:
    fixes = [example(f"fix {n}", priority=Priority.HIGH, source=Source.CORRECTION) for n in range(10)]
    threads = [threading.Thread(target=buffer.add, args=(fix,)) for fix in fixes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert buffer.due("scout").corrections == 10
    admit_all(database)
    job_id = buffer.open_job(JobRequest(agent="scout", run_id="run"))
    attempt = buffer.start_attempt(job_id, 60)
    assert attempt is not None
    assert {row.example_id for row in buffer.claim("scout", job_id, attempt, 500)} == {fix.example_id for fix in fixes}
    assert not buffer.due("scout").due


@pytest.mark.req("J74")
def test_of_many_runs_that_start_at_once_one_trains(database: Urls, buffer: PostgresBuffer) -> None:
    jobs = [buffer.open_job(JobRequest(agent="scout", run_id=f"run {n}")) for n in range(20)]
    attempts: list[int | None] = []
    threads = [threading.Thread(target=lambda j=job: attempts.append(buffer.start_attempt(j, 60))) for job in jobs]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(attempts, key=str) == [1] + [None] * 19


def test_rows_of_dead_jobs_are_trained_once_by_those_that_follow(database: Urls, buffer: PostgresBuffer) -> None:
    buffer.sync_agents([{**record(), "holdout_share": 0.0}])
    buffer.add_many([example(f"text {n}") for n in range(300)])
    admit_all(database)
    taken: list[UUID] = []
    for turn in range(6):  # each job dies with its rows; the next one takes over what expired
        job_id = buffer.open_job(JobRequest(agent="scout", run_id=f"run {turn}"))
        attempt = buffer.start_attempt(job_id, 60)
        assert attempt is not None
        rows = buffer.claim("scout", job_id, attempt, 60)
        if turn % 2:
            buffer.settle_trained(job_id, attempt, f"1.0.{turn}")
            buffer.finish(job_id, attempt, JobStatus.COMPLETED)
            taken += [row.example_id for row in rows]
        else:
            with Database(database.app).connection() as connection:
                connection.execute(
                    "UPDATE perennial.jobs SET lease_until = now() - interval '1 s' WHERE job_id = %s", (job_id,)
                )
    assert len(taken) == len(set(taken)) == 180


def test_a_wake_up_comes_for_urgent_rows_and_full_buffers_only(database: Urls, buffer: PostgresBuffer) -> None:
    import psycopg

    heard: list[str] = []
    with psycopg.connect(database.app, autocommit=True) as ear:
        ear.execute("LISTEN perennial_due")
        buffer.add(example("ordinary"))
        heard += [note.payload for note in ear.notifies(timeout=0.5)]
        assert heard == []
        buffer.add(example("urgent", priority=Priority.HIGH, source=Source.CORRECTION))
        heard += [note.payload for note in ear.notifies(timeout=2, stop_after=1)]
        assert heard == ["scout"]
        admit_all(database)
        buffer.request_training("scout")
        heard += [note.payload for note in ear.notifies(timeout=2, stop_after=1)]
    assert heard == ["scout", "scout"]


@pytest.mark.req("D3")
def test_a_fleet_that_did_not_change_is_one_statement_and_one_that_did_writes_the_change(
    database: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    sync_one = PostgresBuffer._sync_one

    def counting(self: PostgresBuffer, connection: Any, one: Any) -> None:
        written.append(one["agent"])
        sync_one(self, connection, one)

    monkeypatch.setattr(PostgresBuffer, "_sync_one", counting)
    pool = Database(database.app, max_size=2)
    buffer = PostgresBuffer(pool)
    many = [{**record(), "agent": f"agent_{number}"} for number in range(20)]
    buffer.sync_agents(many)
    assert len(written) == 20
    written.clear()
    buffer.sync_agents(many)
    assert written == []
    changed = {**many[3], "tasks": [{**many[3]["tasks"][0], "labels": ["good", "bad"], "aliases": ["mood"]}]}
    buffer.sync_agents([*many[:3], changed, *many[4:19]])
    assert written == ["agent_3"]
    known = buffer.fleet()
    assert "agent_19" not in known  # its file is gone
    assert known["agent_3"].keys() == {TASK, "mood"}
    assert known["agent_3"]["mood"].labels == ("good", "bad")
    written.clear()
    buffer.sync_agents(many[:19], keep=True)
    assert written == ["agent_3"]
    buffer.sync_agents(many)
    assert written == ["agent_3", "agent_19"]
    assert "mood" not in buffer.fleet()["agent_3"]
    pool.close()
