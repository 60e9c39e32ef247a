"""What stands beside a text is plain at once, in both buffers, and what admission refuses keeps neither label nor answer."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from perennial.domain.example import Example
from perennial.ingest.admit import Admission, Admitted, Refused
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.storage.database import Database as Pool
from tests.contract.test_stores import record
from tests.postgres_fixture import Database

pytestmark = pytest.mark.req("K67", "K68")
GIVEN: tuple[tuple[str, dict[str, str]], ...] = (
    ("plain", {"source_id": "editor", "source_url": "https://news.example/a?b=1", "tag": "qa"}),
    ("mail", {"source_id": "ana@desk.org", "source_url": "https://news.example/a?who=ana@desk.org", "tag": "ana@desk.org"}),
    ("again", {"source_id": "ana@desk.org", "source_url": "https://ana:pw@host.example/", "tag": "asked by Ana"}),
    ("number", {"source_id": "+1 415 867 5309", "source_url": "https://198.51.100.7/x", "tag": "4539148803436467"}),
    ("dropped", {"source_id": "inbox:0123456789ab"}), ("uuid", {"source_id": "01234567-8901-4234-8567-012345678901"}),
)  # fmt: skip


def _stored(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    names: dict[str, str] = {}
    found = []
    for row in rows:
        sender = row["source_id"]
        if sender.startswith("id-"):
            assert len(sender) == 19
            sender = names.setdefault(sender, f"person {len(names)}")
        found.append((sender, row["source_url"], row["tag"]))
    return found


def _examples() -> list[Example]:
    return [Example(agent="scout", task="sentiment", input_text=text, expected_output="good", uncertainty=0.5, **more)
            for text, more in GIVEN]  # fmt: skip


def test_the_database_and_the_twin_keep_the_same(database: Database) -> None:
    buffer, twin = PostgresBuffer(Pool(database.app)), MemoryBuffer()
    for store in (buffer, twin):
        store.sync_agents([record("scout")])
        store.add_many(_examples())
    with psycopg.connect(database.superuser) as connection:
        rows = connection.execute("SELECT source_id, source_url, tag FROM perennial.examples ORDER BY id").fetchall()
        senders = {row[0] for row in connection.execute("SELECT source_id FROM perennial.sources")}
    found = _stored([dict(zip(("source_id", "source_url", "tag"), row, strict=True)) for row in rows])
    assert sorted(found) == sorted(_stored([
        {"source_id": row.example.source_id, "source_url": row.example.source_url, "tag": row.example.tag} for row in twin.state.rows
    ]))  # fmt: skip
    assert {row[0] for row in found} == {
        "editor",
        "person 0",
        "person 1",
        *(given["source_id"] for _, given in GIVEN[-2:]),
    }
    assert {row[1:] for row in found} == {
        ("https://news.example/a?b=1", "qa"), ("https://news.example/a", "other"), ("", "other"), ("", ""),
    }  # fmt: skip
    assert not any("@" in sender for sender in senders)


def test_a_pseudonym_is_an_hmac_under_a_salt_that_the_app_role_cannot_read(database: Database) -> None:
    from perennial.ingest.plain_words import pseudonym

    with psycopg.connect(database.superuser) as connection:
        row = connection.execute("SELECT salt, perennial.pseudonym('ana@desk.org') FROM perennial.salt").fetchone()
    assert row is not None
    assert pseudonym("ana@desk.org", bytes(row[0])) == row[1]
    with psycopg.connect(database.app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT salt FROM perennial.salt")


def test_a_refused_row_keeps_neither_label_nor_answer_and_a_personal_answer_goes(database: Database) -> None:
    def examine(task: str, text: str, expected: Any, feedback: str | None) -> Admitted | Refused:
        return (
            Refused(reason="label_form")
            if text == "bad"
            else Admitted(text=text, expected_output=expected, feedback=None)
        )

    made = [
        Example(agent="scout", task="sentiment", input_text=text, expected_output="good", predicted_output=answer, uncertainty=0.5)
        for text, answer in (("bad", "Jane Doe"), ("one", "Jane Doe"), ("two", "fine"))
    ]  # fmt: skip
    buffer, twin = PostgresBuffer(Pool(database.app)), MemoryBuffer()
    for store in (buffer, twin):
        store.sync_agents([record("scout")])
        store.add_many(made)
    Admission(Pool(database.admit)).run("scout", examine, personal=lambda text: text == "Jane Doe")
    MemoryAdmission(twin).run("scout", examine, personal=lambda text: text == "Jane Doe")
    with psycopg.connect(database.app) as connection:
        rows = connection.execute(
            "SELECT state::text, expected_output, predicted_output FROM perennial.examples"
        ).fetchall()
    assert sorted(rows, key=str) == sorted(
        [("quarantined", None, None), ("ready", "good", None), ("ready", "good", "fine")], key=str
    )
    assert [(row.state.value, row.label, row.example.predicted_output) for row in twin.state.rows] == [
        ("quarantined", None, None), ("ready", "good", None), ("ready", "good", "fine"),
    ]  # fmt: skip
