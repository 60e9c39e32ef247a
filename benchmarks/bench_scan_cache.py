"""What the memory of scans saves: a training's second look, and texts that come once for each task.

    PYTHONPATH=include:. python benchmarks/bench_scan_cache.py [--data FILE.jsonl] [--documents 1000]

``--data`` takes JSON Lines with ``text``; without it, generated news. Times are processor seconds of this process; the look-up in the
database is measured by the clock when ``PERENNIAL_DATABASE_URL`` is set, else the twin in memory stands for it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from benchmarks.machine import spread, table

from perennial.demo.stream import NewsStream
from perennial.domain.redaction import ScanCache
from perennial.guard.redactor import RECENT, Redactor
from perennial.storage.database import Database
from perennial.storage.scans import MemoryScans, PostgresScans

KEY = b"a key of the benchmark"
ROUNDS = 3
TASKS = 3
BATCH = 100  # rows that one transaction of admission takes


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    texts = _texts(arguments.data, arguments.documents)
    plain, keeping = Redactor(names=True, key=KEY), Redactor(names=True, key=KEY, recent=RECENT)
    redacted = [plain.redact(text).text for text in texts]
    url = os.environ.get("PERENNIAL_DATABASE_URL")
    cache: ScanCache = PostgresScans(Database(url)) if url else MemoryScans()
    cache.remember(plain.version, {plain.content_key(text) for text in redacted})

    def known() -> None:
        found = cache.known(plain.version, {plain.content_key(text) for text in redacted})
        assert len(found) == len(set(redacted))

    def admit(redactor: Redactor) -> None:
        for start in range(0, len(texts), BATCH):
            for _ in range(TASKS):
                redactor.redact_many(texts[start : start + BATCH])

    ways: tuple[tuple[str, Callable[[], object], Callable[[], float]], ...] = (
        ("second look, every text", lambda: [plain.scan(text) for text in redacted], time.process_time),
        (f"second look, all known ({'PostgreSQL' if url else 'in memory'})", known, time.perf_counter if url else time.process_time),
        (f"admission, each text for {TASKS} tasks", lambda: admit(plain), time.process_time),
        (f"admission, each text for {TASKS} tasks, results kept", lambda: admit(keeping), time.process_time),
    )  # fmt: skip
    rows = []
    for name, act, clock in ways:
        spent = []
        for _ in range(ROUNDS):
            keeping = Redactor(names=True, key=KEY, recent=RECENT)  # each round begins with nothing kept
            began = clock()
            act()
            spent.append(1000 * (clock() - began))
        rows.append((name, spread(spent, 0)))
    table(f"The memory of scans, {len(texts)} texts", ("way", "ms, median [min..max]"), rows)


def _texts(path: Path | None, count: int) -> list[str]:
    if path is None:
        return [article.text for article in NewsStream(1).articles(count, period=0.5, pii_rate=0.25)]
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in islice(file, count)]


if __name__ == "__main__":
    main()
