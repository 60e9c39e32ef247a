"""One agent with releases, and both forms of the retention store over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from perennial.registry.ledger import PostgresLedger
from perennial.retention.memory import MemoryRetention, OldRow
from perennial.retention.store import Left, PostgresRetention, RetentionStore, Rows
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database
from tests.unit.registry.samples import components, manifest

VERSIONS = ("1.0.0", "1.0.1", "1.0.2", "1.0.3")


@dataclass
class Deployment:
    """A retention store with the releases 1.0.0 to 1.0.3 of scout, and ways to put into play and to age."""

    store: RetentionStore
    serve: Callable[[str], None]
    add_job: Callable[[UUID, datetime | None], None]
    add_old: Callable[..., None]
    extras: dict[str, Any] = field(default_factory=dict)


def memory() -> Deployment:
    store = MemoryRetention()
    for version in VERSIONS:
        base = None if version == "1.0.0" else "1.0.0"
        store.versions[("scout", version)] = Left(
            version=version, digest=f"digest-{version}", base_version=base, encoders=("e" * 64,)
        )  # fmt: skip
    return Deployment(
        store=store,
        serve=lambda version: store.playing.update({("scout", version): "champion"}),
        add_job=lambda identity, ended: store.jobs.update({identity: ended}),
        add_old=lambda rows, at, **more: store.old.append(OldRow(rows=rows, at=at, **more)),
    )


_OLD = {
    Rows.PREDICTIONS: "INSERT INTO perennial.predictions (prediction_id, agent, task, version, arm, input_digest, at)"
    " VALUES (gen_random_uuid(), 'scout', 'news', %(version)s, 'champion', '', %(at)s)",
    Rows.OUTCOMES: "INSERT INTO perennial.outcomes (prediction_id, agent, task, version, arm, actual, correct, at)"
    " VALUES (gen_random_uuid(), 'scout', 'news', %(version)s, 'champion', '1', 1, %(at)s)",
    Rows.RECENT_INPUTS: "INSERT INTO perennial.recent_inputs VALUES (gen_random_uuid(), 'scout', 'news', 'a text', %(at)s)",
    Rows.GATEWAYS: "INSERT INTO perennial.gateways (instance, agent, seen_at) VALUES (gen_random_uuid(), 'scout', %(at)s)",
    Rows.OUTBOX: "INSERT INTO perennial.outbox (topic, agent, payload, relayed_at) VALUES ('t', 'scout', '{}', %(at)s)",
    Rows.EMBEDDINGS: "INSERT INTO perennial.embeddings VALUES ('e', gen_random_uuid(), '', %(at)s)",
    Rows.SCANNED_TEXTS: "INSERT INTO perennial.scanned_texts VALUES ('1', gen_random_uuid()::text::bytea, %(at)s)",
    Rows.REDACTION_TASKS: "INSERT INTO perennial.redaction_tasks (agent, text_key, task, kinds, doubts, words, example_ids, version,"
    " opened_at) VALUES ('scout', gen_random_uuid()::text::bytea, 'news', '{}', '[{}]', '{a}', '{}', '1', %(at)s)",
    Rows.REJECTED: "INSERT INTO perennial.rejected (source, part, position, field, reason, added_at)"
    " VALUES ('inbox', gen_random_uuid(), 1, 'label', 'broken', %(at)s)",
}  # fmt: skip
EXAMPLE = """
WITH made AS (
    INSERT INTO perennial.examples (example_id, agent, task, state, input_text, expected_output, uncertainty, importance, priority,
        source, content_digest, input_digest, created_at, added_at, trained_at, correction, holdout, source_url)
    VALUES (gen_random_uuid(), 'scout', 'news', %(state)s, 'a text', '"world"', 0.5, 0.5, 0, 'example',
        sha256(gen_random_uuid()::text::bytea), sha256('x'), %(at)s, %(at)s, %(at)s, %(correction)s, %(holdout)s, 'http://a')
    RETURNING example_id
)
INSERT INTO perennial.originals (example_id, input_text) SELECT example_id, 'the original' FROM made RETURNING example_id
"""


def postgres(database: Database, room: Path) -> Iterator[Deployment]:
    app, admit, owner = Pool(database.app), Pool(database.admit), Pool(database.superuser)
    ledger = PostgresLedger(app)
    sample = replace(manifest(components(room / "candidate")), gate_report_digest="d" * 64)
    for version in VERSIONS:
        made = replace(
            sample, version=version, base_version=None if version == "1.0.0" else "1.0.0", order=ledger.reserve_order(),
            job_id=str(uuid4()),
        )  # fmt: skip
        ledger.record_version(made, digest=f"digest-{version}", uri="", mlflow_run_id=None)

    def run(statement: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        with owner.connection() as connection:
            done = connection.execute(statement, values)
            return [] if done.description is None else done.fetchall()

    def add_old(rows: Rows, at: datetime, *, version: str = "1.0.0", watched: bool = False, **_: Any) -> None:
        if rows in (Rows.LEFTOVERS, Rows.TRAINED):
            state = "superseded" if rows is Rows.LEFTOVERS else "trained"
            run(EXAMPLE, {"at": at, "state": state, "correction": watched, "holdout": False})
            return
        run(_OLD[rows], {"at": at, "version": version})

    def add_job(identity: UUID, ended: datetime | None) -> None:
        run(
            "INSERT INTO perennial.jobs (job_id, agent, run_id, status, reason, mode, completed_at)"
            " VALUES (%(id)s, 'scout', %(id)s, %(status)s, 'request', 'online', %(ended)s)",
            {"id": identity, "status": "completed" if ended else "training", "ended": ended},
        )

    run(
        "INSERT INTO perennial.agents (agent, record, file_digest, update_threshold, max_buffer_size, holdout_share)"
        " VALUES ('scout', '{}', '', 50, 1000, 0)", {},
    )  # fmt: skip
    yield Deployment(
        store=PostgresRetention(app, admit),
        serve=lambda version: (
            run(
                "INSERT INTO perennial.serving (agent, champion) VALUES ('scout', %(version)s)"
                " ON CONFLICT (agent) DO UPDATE SET champion = excluded.champion", {"version": version},
            ) and None
        ),
        add_job=add_job, add_old=add_old, extras={"run": run, "app": app},
    )  # fmt: skip
    for pool in (app, admit, owner):
        pool.close()


@pytest.fixture(params=["memory", "postgres"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    if request.param == "memory":
        yield memory()
        return
    yield from postgres(request.getfixturevalue("database"), tmp_path)


@pytest.fixture
def on_postgres(database: Database, tmp_path: Path) -> Iterator[Deployment]:
    yield from postgres(database, tmp_path)
