"""How long a verification of the whole audit takes, whether every tampering is found at the right row, and what an append costs.

    PYTHONPATH=. python benchmarks/bench_audit.py [--rows 1000000] [--tamperings 1000] [--seed 11]

Starts a PostgreSQL of its own and makes the rows in it. Verification hashes in Python, from the bytes that COPY sends. The tamperings of
the small chain are made on values in memory, those of the large one by the owner in the database with the triggers off.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from benchmarks.bench_buffer import database, server
from benchmarks.machine import spread, table

from perennial.audit.chain import MOST
from perennial.audit.log import PostgresAuditLog
from perennial.audit.verification import Finding, Kind, Report, verify
from perennial.storage.database import Database
from tests.postgres_fixture import Database as TestDatabase
from tests.unit.audit import test_verification as small

Place = tuple[Kind, int, int | None]
TABLES = ("audit", "audit_batches", "audit_unsealed")
MAKE = """
INSERT INTO perennial.audit (at, actor, action, agent, subject, detail)
SELECT clock_timestamp(), 'editor ' || mod(n, 50), (ARRAY['claimed', 'gate', 'approved', 'promoted', 'reverted'])[1 + mod(n, 5)],
       (ARRAY['scout', 'desk'])[1 + mod(n, 2)], '1.' || n || '.0',
       jsonb_build_object('why', 'accuracy of topic fell by ' || mod(n, 97) || ' points', 'rows', n,
                          'evidence', jsonb_build_array(mod(n, 7), 0.25, true))
FROM generate_series(1, %s) n
"""
BARE = """
INSERT INTO perennial.audit (actor, action, agent, subject, detail) VALUES ('perennial', 'claimed', 'scout', '1.0.0', '{"rows": 5}')
"""
QUEUE = """
INSERT INTO perennial.audit_unsealed
SELECT id, at, perennial.audit_content(actor, action, agent, subject, detail) FROM perennial.audit
"""


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def look(log: PostgresAuditLog, heads: list[tuple[int, bytes]]) -> Report:
    with log.chain() as chain:
        return verify(chain, heads)


@contextmanager
def unguarded(connection: psycopg.Connection[Any]) -> Iterator[None]:
    for name in TABLES:
        connection.execute(f"ALTER TABLE perennial.{name} DISABLE TRIGGER ALL")
    yield
    for name in TABLES:
        connection.execute(f"ALTER TABLE perennial.{name} ENABLE TRIGGER ALL")
    connection.commit()


def attacks(rows: int, dice: random.Random) -> Iterator[tuple[str, list[str], list[str], Place]]:
    """What the owner does, how it is undone for the next one, and where it must be found."""

    def place(kind: Kind, row: int) -> Place:
        return kind, (row - 1) // MOST + 1, row

    for column in ("actor", "action", "agent", "subject"):
        row = dice.randrange(1, rows + 1)
        yield (
            f"edit {column}", [f"UPDATE perennial.audit SET {column} = {column} || ' ' WHERE id = {row}"],
            [f"UPDATE perennial.audit SET {column} = left({column}, -1) WHERE id = {row}"], place(Kind.EDITED, row),
        )  # fmt: skip
    row = dice.randrange(1, rows + 1)
    yield (
        "edit time", [f"UPDATE perennial.audit SET at = at + interval '1 us' WHERE id = {row}"],
        [f"UPDATE perennial.audit SET at = at - interval '1 us' WHERE id = {row}"], place(Kind.EDITED, row),
    )  # fmt: skip
    row = dice.randrange(1, rows + 1)
    yield (
        "edit detail", [f"UPDATE perennial.audit SET detail = detail || '{{\"rows\": -1}}' WHERE id = {row}"],
        [f"UPDATE perennial.audit SET detail = jsonb_set(detail, '{{rows}}', to_jsonb(id)) WHERE id = {row}"],
        place(Kind.EDITED, row),
    )  # fmt: skip
    row, twin = sorted(dice.sample(range(1, rows + 1), 2))
    columns = "at, actor, action, agent, subject, detail"
    swap = (
        f"UPDATE perennial.audit a SET ({columns}) = (SELECT {columns} FROM perennial.audit b WHERE b.id = {row + twin} - a.id) "
        f"WHERE id IN ({row}, {twin})"
    )
    yield "swap", [swap], [swap], place(Kind.REORDERED, row)
    row = dice.randrange(1, rows + 1)
    keep = f"CREATE TABLE public.kept AS SELECT * FROM perennial.audit WHERE id = {row}"
    back = ["INSERT INTO perennial.audit OVERRIDING SYSTEM VALUE SELECT * FROM public.kept", "DROP TABLE public.kept"]
    yield "delete", [keep, f"DELETE FROM perennial.audit WHERE id = {row}"], back, place(Kind.DELETED, row)
    forged = "INSERT INTO perennial.audit (id, actor, action) OVERRIDING SYSTEM VALUE VALUES (0, 'editor', 'approved')"
    yield "insert", [forged], ["DELETE FROM perennial.audit WHERE id = 0"], (Kind.INSERTED, 1, 0)
    left = rows // MOST - dice.randrange(1, 10)  # the last one: nothing is put back
    cut = [
        f"DELETE FROM perennial.audit WHERE id > {left * MOST}",
        f"DELETE FROM perennial.audit_batches WHERE batch > {left}",
    ]
    yield "cut with batches", cut, [], (Kind.CUT, left + 1, left * MOST)


def large(host: TestDatabase, rows: int, dice: random.Random) -> bool:
    log = PostgresAuditLog(Database(host.app))
    with psycopg.connect(host.owner) as owner:
        making, _ = timed(lambda: owner.execute(MAKE, (rows,)))
        queueing, _ = timed(lambda: owner.execute(QUEUE))
        owner.commit()

    def seal_all() -> int:
        count = 0
        while log.seal() is not None:
            count += 1
        return count

    sealing, batches = timed(seal_all)
    with psycopg.connect(host.owner, autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE perennial.audit")
        size = owner.execute(
            "SELECT pg_total_relation_size('perennial.audit'), pg_total_relation_size('perennial.audit_batches')"
        ).fetchone()
    assert size is not None
    heads = [(seal.batch, seal.hash) for seal in log.seals(0)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = time.process_time()
    runs = [timed(lambda: look(log, heads)) for _ in range(3)]
    used = (time.process_time() - used) / len(runs)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    good = all(report.sound and report.rows == rows for _, report in runs)
    figures = [
        ("rows made in the database, with their digests", f"{making + queueing:.1f} s"),
        (f"sealed in {batches} batches of at most {MOST}", f"{sealing:.1f} s"),
        ("verified, median of 3 (asked: under 10 s for 1,000,000)", f"{spread([seconds for seconds, _ in runs])} s"),
        ("of which processor time of Python", f"{used:.2f} s"),
        ("memory that verifying added", f"{grown:.0f} MB"),
        ("size of rows and of batches", f"{size[0] / 2**20:.0f} and {size[1] / 2**20:.0f} MB"),
    ]
    table(f"{rows:,} audit rows", ("what", "figure"), figures)
    found: list[tuple[str, str, str]] = []
    with psycopg.connect(host.owner) as owner:
        for name, does, undoes, where in attacks(rows, dice):
            with unguarded(owner):
                for statement in does:
                    owner.execute(statement)
            seconds, report = timed(lambda: look(log, heads))
            first: Finding | None = next(iter(report.findings), None)
            right = first is not None and (first.kind, first.batch, first.row) == where
            good &= right
            found.append(
                (
                    name,
                    "right" if right else f"WRONG, asked {where}",
                    f"{first.text if first else 'nothing'} ({seconds:.1f} s)",
                )
            )
            with unguarded(owner):
                for statement in undoes:
                    owner.execute(statement)
    table(f"{len(found)} tamperings on {rows:,} rows", ("tampering", "first place", "what verification said"), found)
    return good


def tampered(count: int, seed: int) -> bool:
    attack = small.Tamper(seed)
    hows = small.attacks(attack)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for number in range(count):
        name, how = hows[number % len(hows)]
        where = how()
        first = next(iter(attack.verify().findings), None)
        total[name] += 1
        right[name] += first is not None and (first.kind, first.batch, first.row) == where
    rows = [(name, total[name], right[name]) for name in total]
    table(
        f"{count:,} tamperings on {small.ROWS:,} rows in batches of {small.BATCH}", ("tampering", "made", "found at the right place"),
        [*rows, ("all", sum(total.values()), sum(right.values()))],
    )  # fmt: skip
    return right == total


def appends(host: TestDatabase, seconds: float) -> None:
    """The function beside a bare INSERT of the same row by the owner, each from one thread and from eight, in turns."""
    figures: list[tuple[str, str, str]] = []
    for threads in (1, 8):
        pool = Database(host.app, max_size=threads + 1)
        bare, log = Database(host.owner, max_size=threads), PostgresAuditLog(pool)

        def insert(bare: Database = bare) -> None:
            with bare.connection() as connection:
                connection.execute(BARE)

        def append(log: PostgresAuditLog = log) -> None:
            log.append(actor="perennial", action="claimed", agent="scout", subject="1.0.0", detail={"rows": 5})

        rates = [(rate(insert, threads, seconds / 2), rate(append, threads, seconds / 2, log)) for _ in range(4)]
        plain, ours = (statistics.median(column) for column in zip(*rates, strict=True))
        figures.append((f"{threads} thread{'s' * (threads > 1)}", f"{ours:.0f}/s", f"{plain:.0f}/s"))
        pool.close()
        bare.close()
    table("Durable appends a second", ("from", "append, while it is sealed", "bare INSERT"), figures)


def rate(work: Callable[[], None], threads: int, seconds: float, log: PostgresAuditLog | None = None) -> float:
    until, counts = time.perf_counter() + seconds, [0] * threads

    def repeat(number: int) -> None:
        while time.perf_counter() < until:
            work()
            counts[number] += 1

    workers = [threading.Thread(target=repeat, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        if log is not None:
            log.seal()
        time.sleep(0.2)
    return sum(counts) / seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tamperings", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of appends")
    choice = parser.parse_args()
    good = tampered(choice.tamperings, choice.seed)
    with server() as host:
        with database(host) as fresh:
            appends(fresh, choice.seconds)
        with database(host) as fresh:
            good &= large(fresh, choice.rows, random.Random(choice.seed))
    print("\nall found at the right place" if good else "\nSOMETHING WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
