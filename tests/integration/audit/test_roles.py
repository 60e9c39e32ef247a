"""Who may do what to the record: attacks by role, and what verification says of those that only the owner can make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from perennial.audit.log import PostgresAuditLog
from perennial.audit.verification import Kind, Report, verify
from perennial.storage.database import Database as Pool
from tests.postgres_fixture import Database

pytestmark = pytest.mark.req("K70", "K14")

ROWS, BATCH = 12, 4
FORGED = "INSERT INTO perennial.audit (id, at, actor, action) OVERRIDING SYSTEM VALUE VALUES ({}, now(), 'editor', 'approved')"
ATTACKS = {
    "insert": "INSERT INTO perennial.audit (actor, action) VALUES ('editor', 'approved')",
    "insert with an id and a time": FORGED.format(99),
    "update": "UPDATE perennial.audit SET actor = 'nobody' WHERE id = 5",
    "delete": "DELETE FROM perennial.audit WHERE id = 5",
    "truncate": "TRUNCATE perennial.audit",
    "disable the triggers": "ALTER TABLE perennial.audit DISABLE TRIGGER ALL",
    "drop": "DROP TABLE perennial.audit",
    "rename": "ALTER TABLE perennial.audit RENAME TO old",
    "new function": "CREATE OR REPLACE FUNCTION perennial.append_audit(actor text, action text, agent text, subject text, detail jsonb) "
    "RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    "wind the ids back": "SELECT setval('perennial.audit_id_seq', 1)",
    "use up ids": "SELECT nextval('perennial.audit_id_seq')",
    "insert a batch": "INSERT INTO perennial.audit_batches SELECT 99, 1, 1, 1, 1, now(), ''::bytea, ''::bytea, '1'::bytea, '1'::bytea",
    "update a batch": "UPDATE perennial.audit_batches SET hash = ''",
    "delete a batch": "DELETE FROM perennial.audit_batches WHERE batch = 3",
    "truncate the batches": "TRUNCATE perennial.audit_batches",
    "take a row out of the queue": "DELETE FROM perennial.audit_unsealed",
    "put a row into the queue": "INSERT INTO perennial.audit_unsealed VALUES (99, now(), '')",
    "change what waits": "UPDATE perennial.audit_unsealed SET content = ''",
}  # fmt: skip


@pytest.fixture
def log(database: Database) -> Iterator[PostgresAuditLog]:
    pool = Pool(database.app)
    made = PostgresAuditLog(pool)
    for number in range(ROWS):
        made.append(actor="editor", action="approved", agent="scout", subject=f"1.{number}.0", detail={"rows": number})
    while made.seal(most=BATCH) is not None:
        pass
    made.append(actor="editor", action="approved")
    yield made
    pool.close()


def report(log: PostgresAuditLog, heads: list[tuple[int, bytes]] | None = None) -> Report:
    with log.chain() as chain:
        return verify(chain, heads or ())


def test_neither_role_of_the_application_can_rewrite_the_record(database: Database, log: PostgresAuditLog) -> None:
    for url in (database.app, database.admit):
        with psycopg.connect(url, autocommit=True) as connection:
            for attack in ATTACKS.values():
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(attack)  # type: ignore[arg-type]
    assert report(log).sound


def test_the_owner_is_refused_by_the_triggers_until_they_are_disabled(
    database: Database, log: PostgresAuditLog
) -> None:
    with psycopg.connect(database.owner, autocommit=True) as connection:
        for name in ("update", "delete", "truncate", "update a batch", "delete a batch", "truncate the batches"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                connection.execute(ATTACKS[name])  # type: ignore[arg-type]
        connection.execute(ATTACKS["disable the triggers"])
        kinds = [finding.kind for finding in report(log).findings]
        assert kinds == [Kind.ALTERED]
        connection.execute("ALTER TABLE perennial.audit ENABLE TRIGGER ALL")
    assert report(log).sound


def test_the_function_takes_no_id_time_or_digest_and_nobody_without_a_name(
    database: Database, log: PostgresAuditLog
) -> None:
    with psycopg.connect(database.app, autocommit=True) as connection:
        for call in (
            "perennial.append_audit('a', 'b', '', '', '{}', 7)", "perennial.append_audit('a', 'b', '', '', '{}', now())",
            "perennial.append_audit(id => 7, actor => 'a', action => 'b', agent => '', subject => '', detail => '{}')",
            "perennial.audit_content('a', 'b', '', '', '{}')",
        ):  # fmt: skip
            with pytest.raises((psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege)):
                connection.execute(f"SELECT {call}")  # type: ignore[arg-type]
        for actor, action in (("", "b"), ("a", " "), (None, "b")):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute("SELECT perennial.append_audit(%s, %s, '', '', '{}')", (actor, action))
        before = datetime.now(UTC)
        connection.execute("SELECT perennial.append_audit('a', 'b', NULL, NULL, NULL)")
    newest = log.entries(limit=1)[0]
    assert (newest.agent, newest.subject, newest.detail) == ("", "", {})
    assert abs((newest.at - before).total_seconds()) < 60
    assert report(log).sound


def test_names_of_the_callers_own_do_not_mislead_the_functions(database: Database, log: PostgresAuditLog) -> None:
    """A caller's temporary tables and functions, and a search path that leads to them, change nothing."""
    with psycopg.connect(database.app) as connection:
        connection.execute("CREATE TEMPORARY TABLE audit (LIKE perennial.audit)")
        connection.execute("CREATE TEMPORARY TABLE audit_unsealed (LIKE perennial.audit_unsealed)")
        connection.execute("CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$")
        connection.execute(
            "CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$"
        )
        connection.execute("SET search_path = pg_temp, pg_catalog")
        connection.execute("SELECT perennial.append_audit('a', 'b', '', '', '{}')")
        connection.execute("SELECT perennial.seal_audit()")
    found = report(log)
    assert (found.sound, found.rows, found.unsealed) == (True, ROWS + 2, 0)


def test_an_anonymous_role_may_not_even_call(database: Database) -> None:
    with psycopg.connect(database.superuser, autocommit=True) as admin:
        admin.execute("SET SESSION AUTHORIZATION DEFAULT")
        granted = admin.execute(
            "SELECT count(*) FROM pg_proc p, aclexplode(p.proacl) a WHERE p.proname IN "
            "('append_audit', 'seal_audit', 'audit_content', 'audit_field') AND a.grantee = 0"
        ).fetchone()
    assert granted == (0,)


def _swap(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    columns = "at, actor, action, agent, subject, detail"
    connection.execute(
        f"UPDATE perennial.audit a SET ({columns}) = (SELECT {columns} FROM perennial.audit b WHERE b.id = 13 - a.id) "  # type: ignore[arg-type]
        "WHERE id IN (3, 10)"
    )


def _fork(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """As thorough as it gets: the row changes, and everything from its batch on is sealed anew with the product's own function."""
    connection.execute("UPDATE perennial.audit SET actor = 'nobody' WHERE id = 6")
    connection.execute("DELETE FROM perennial.audit_batches WHERE batch >= 2")
    connection.execute(
        "INSERT INTO perennial.audit_unsealed SELECT id, at, perennial.audit_content(actor, action, agent, subject, detail) "
        "FROM perennial.audit WHERE id BETWEEN 5 AND 12"
    )
    connection.execute("SELECT perennial.seal_audit(4)")
    connection.execute("SELECT perennial.seal_audit(4)")


Owner = Callable[[psycopg.Connection[tuple[object, ...]]], object]
TAMPERINGS: dict[str, tuple[Owner, tuple[Kind, int, int | None]]] = {
    "edit": (lambda c: c.execute("UPDATE perennial.audit SET actor = 'nobody' WHERE id = 5"), (Kind.EDITED, 2, 5)),
    "edit a time": (lambda c: c.execute("UPDATE perennial.audit SET at = at - interval '1 us' WHERE id = 5"), (Kind.EDITED, 2, 5)),
    "edit inside the JSON": (
        lambda c: c.execute("UPDATE perennial.audit SET detail = jsonb_set(detail, '{rows}', '40') WHERE id = 5"), (Kind.EDITED, 2, 5)
    ),
    "delete": (lambda c: c.execute("DELETE FROM perennial.audit WHERE id = 8"), (Kind.DELETED, 2, 8)),
    "insert": (lambda c: c.execute(FORGED.format(-4)), (Kind.INSERTED, 1, -4)),  # type: ignore[arg-type]
    "insert at the end": (lambda c: c.execute(FORGED.format(99)), (Kind.INSERTED, 4, 99)),  # type: ignore[arg-type]
    "swap": (_swap, (Kind.REORDERED, 1, 3)),
    "cut": (
        lambda c: [c.execute("DELETE FROM perennial.audit WHERE id > 8"), c.execute("DELETE FROM perennial.audit_unsealed"),
                   c.execute("DELETE FROM perennial.audit_batches WHERE batch > 2")],
        (Kind.CUT, 3, 8),
    ),
    "fork": (_fork, (Kind.FORKED, 2, None)),
    "delete what waits": (lambda c: c.execute("DELETE FROM perennial.audit WHERE id = 13"), (Kind.DELETED, 4, 13)),
    "a row from another table": (
        lambda c: [c.execute("CREATE TABLE perennial.more () INHERITS (perennial.audit)"),
                   c.execute("INSERT INTO perennial.more VALUES (5, now(), 'editor', 'approved', '', '', '{}')"),
                   c.execute("GRANT SELECT ON perennial.more TO perennial_app")],
        (Kind.INSERTED, 2, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_the_owner_does_with_the_triggers_off_is_found_at_the_right_row(
    database: Database, log: PostgresAuditLog, name: str
) -> None:
    tamper, where = TAMPERINGS[name]
    heads = [(seal.batch, seal.hash) for seal in log.seals(0)]
    assert report(log, heads).sound
    with psycopg.connect(database.owner) as connection:
        for table in ("audit", "audit_batches", "audit_unsealed"):
            connection.execute(f"ALTER TABLE perennial.{table} DISABLE TRIGGER ALL")  # type: ignore[arg-type]
        tamper(connection)
        for table in ("audit", "audit_batches", "audit_unsealed"):
            connection.execute(f"ALTER TABLE perennial.{table} ENABLE TRIGGER ALL")  # type: ignore[arg-type]
    first = report(log, heads).findings[0]
    assert (first.kind, first.batch, first.row) == where
