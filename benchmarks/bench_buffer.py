"""How fast the buffer is, against bare COPY in the same run, and whether claim and "due" depend on its size.

    PYTHONPATH=. python benchmarks/bench_buffer.py [--rows 100000] [--large 1000000] [--json OUT]

Starts a PostgreSQL of its own. Absolute figures depend on the disk's fsync; the ratios do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from benchmarks.machine import table

from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.postgres_intake import _TYPES, _as_row
from perennial.storage.database import Database
from tests import postgres_fixture

BODY = (
    " rates fell after the bank said it would wait and markets rose while oil stayed where it was all through august"
    * 5
)
CHUNK = 5_000


def record(agent: str, most: int = 10_000_000) -> dict[str, Any]:
    task: dict[str, Any] = {
        "task": "topic",
        "kind": "classification",
        "labels": None,
        "max_length": 20_000,
        "aliases": [],
    }
    return {
        "agent": agent, "record": {}, "file_digest": "", "update_threshold": 50, "max_buffer_size": most,
        "holdout_share": 0.1, "tasks": [task],
    }  # fmt: skip


def examples(count: int, start: int = 0, agent: str = "scout") -> list[Example]:
    """News-like texts of about 590 characters, all different."""
    now = datetime.now(UTC)
    return [
        Example(
            agent=agent, task="topic", input_text=f"{number}{BODY}", expected_output=f"label {number % 7}",
            uncertainty=(number % 97) / 97, importance=(number % 89) / 89, created_at=now,
        )
        for number in range(start, start + count)
    ]  # fmt: skip


@contextmanager
def server() -> Iterator[postgres_fixture.Server]:
    running = postgres_fixture.postgres_server.__wrapped__()  # type: ignore[attr-defined]
    try:
        yield next(running)
    finally:
        next(running, None)


@contextmanager
def database(host: postgres_fixture.Server) -> Iterator[postgres_fixture.Database]:
    made = postgres_fixture.database.__wrapped__(host)  # type: ignore[attr-defined]
    try:
        yield next(made)
    finally:
        next(made, None)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bulk(host: postgres_fixture.Server, rows: int) -> dict[str, Any]:
    """Bulk add beside a bare COPY of the same rows into a table of the same columns without any index.

    The two take turns chunk by chunk, so that whatever else the machine does meets both alike.
    """
    batch = examples(rows)
    ours: list[float] = []
    bare: list[float] = []
    with database(host) as urls:
        pool = Database(urls.app)
        buffer = PostgresBuffer(pool)
        buffer.sync_agents([record("scout")])
        buffer.add_many(examples(10, 10**9))  # connections, plans
        with psycopg.connect(urls.owner, autocommit=True) as owner:
            owner.execute("SELECT perennial.open_intake()")
            owner.execute("CREATE TABLE perennial.bare (LIKE pg_temp.perennial_staged)")
            owner.execute("GRANT INSERT ON perennial.bare TO perennial_app")

        def plain(chunk: list[Example]) -> None:
            with (
                pool.connection() as connection,
                connection.cursor() as cursor,
                cursor.copy("COPY perennial.bare FROM STDIN (FORMAT binary)") as copy,
            ):
                copy.set_types(_TYPES)
                for ordinal, example in enumerate(chunk):
                    copy.write_row(_as_row(ordinal, example))

        for number, start in enumerate(range(0, len(batch), CHUNK)):
            chunk = batch[start : start + CHUNK]
            turns = [(plain, bare), (buffer.add_many, ours)]
            for work, times in turns if number % 2 else reversed(turns):
                times.append(timed(lambda w=work, c=chunk: w(c)))  # type: ignore[misc]
        pool.close()
    return {
        "bulk_rows_per_s": round(rows / sum(ours)),
        "bare_copy_rows_per_s": round(rows / sum(bare)),
        "ratio_of_sums": round(sum(ours) / sum(bare), 2),
        "ratio_of_medians": round(statistics.median(ours) / statistics.median(bare), 2),
        "bulk_rows_per_s_best_chunk": round(CHUNK / min(ours)),
        "bare_copy_rows_per_s_best_chunk": round(CHUNK / min(bare)),
    }


FILL = """
INSERT INTO perennial.examples (example_id, agent, task, state, input_text, expected_output, uncertainty, importance, priority,
    source, content_digest, input_digest, created_at, admitted_at)
SELECT gen_random_uuid(), 'scout', 'topic', 'ready', 'text ' || n, '"a"', random(), random(), (random() * 1.4)::int, 'example',
    sha256(convert_to('c' || n, 'UTF8')), sha256(convert_to('i' || n, 'UTF8')), now() - n * interval '1 ms', now()
FROM generate_series(%s::int, %s::int) n
"""


def sizes(host: postgres_fixture.Server, small: int, large: int) -> dict[str, Any]:
    """Claim of the best 1,000 rows and the "due" test at two sizes; medians of 15."""
    found: dict[str, Any] = {}
    with database(host) as urls:
        pool = Database(urls.app)
        buffer = PostgresBuffer(pool)
        buffer.sync_agents([record("scout")])
        first = 1
        for size in (small, large):
            with psycopg.connect(urls.owner, autocommit=True) as owner:
                owner.execute(FILL, (first, size))
                owner.execute("VACUUM ANALYZE perennial.examples")
            first = size + 1
            claims, dues = [], []
            for number in range(15):
                dues.append(timed(lambda: buffer.due("scout")))
                job_id = buffer.open_job(JobRequest(agent="scout", run_id=f"{size}-{number}"))
                attempt = buffer.start_attempt(job_id, 600)
                assert attempt is not None
                claims.append(timed(lambda j=job_id, a=attempt: buffer.claim("scout", j, a, 1000)))  # type: ignore[misc]
                buffer.give_back(job_id, attempt, refused=False, reason="")
                with pool.connection() as connection:  # no trace in the history: a failed job would let the agent rest
                    connection.execute("UPDATE perennial.jobs SET status = 'cancelled' WHERE job_id = %s", (job_id,))
            found[f"claim_1000_ms_at_{size}"] = round(statistics.median(claims) * 1000, 2)
            found[f"due_ms_at_{size}"] = round(statistics.median(dues) * 1000, 2)
        found["claim_ratio"] = round(found[f"claim_1000_ms_at_{large}"] / found[f"claim_1000_ms_at_{small}"], 2)
        found["due_ratio"] = round(found[f"due_ms_at_{large}"] / found[f"due_ms_at_{small}"], 2)
        pool.close()
    return found


def writers(host: postgres_fixture.Server, threads: int = 64, each: int = 100) -> dict[str, Any]:
    """Single adds: one writer, then 64 threads over one pool of ten connections."""
    with database(host) as urls:
        pool = Database(urls.app, max_size=10, wait_seconds=60)
        buffer = PostgresBuffer(pool)
        buffer.sync_agents([record("scout")])
        alone = examples(1000)
        seconds_alone = timed(lambda: [buffer.add(one) for one in alone])
        work = [examples(each, 10_000 + number * each) for number in range(threads)]
        running = [threading.Thread(target=lambda rows=rows: [buffer.add(one) for one in rows]) for rows in work]

        def together() -> None:
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

        seconds = timed(together)
        stored = sum(buffer.counts("scout").values())
        pool.close()
    return {
        "single_adds_per_s": round(1000 / seconds_alone),
        "single_adds_per_s_64_threads": round(threads * each / seconds),
        "rows_expected": 1000 + threads * each, "rows_stored": stored,
    }  # fmt: skip


MEMORY = """
import resource, sys
import perennial.client as client
from datetime import datetime, UTC
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = [client.TrainingExample(f"agent{a}", "topic", f"{a} {n} " + "x" * 580, "label", 0.5, 0.5, "", datetime.now(UTC))
        for a in range(8) for n in range(1000)]
result = client.add_examples(rows)
assert result.added == 8000, result
print(before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(host: postgres_fixture.Server) -> dict[str, Any]:
    """Resident memory of a client process that holds 8 x 1,000 examples and adds them."""
    with database(host) as urls:
        pool = Database(urls.app)
        PostgresBuffer(pool).sync_agents([record(f"agent{number}") for number in range(8)])
        pool.close()
        environment = {**os.environ, "PERENNIAL_DATABASE_URL": urls.app}
        done = subprocess.run(
            [sys.executable, "-c", MEMORY], env=environment, check=True, capture_output=True, text=True
        )
    imported, peak = (float(number) for number in done.stdout.split())
    return {"client_mb_after_import": round(imported), "client_mb_with_8000_rows": round(peak)}


def main() -> None:
    """Run everything and print it with the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--json")
    chosen = parser.parse_args()
    found: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1)}
    with server() as host:
        found |= bulk(host, chosen.rows)
        found |= writers(host)
        found |= sizes(host, min(100_000, chosen.large), chosen.large)
        found |= memory(host)
    table("Buffer", ("what", "measured"), list(found.items()))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as out:
            json.dump(found, out, indent=1)


if __name__ == "__main__":
    main()
