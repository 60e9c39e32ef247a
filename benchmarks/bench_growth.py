"""What N corrections in a row leave behind, what retention takes of it, and whether the next N add to it: growth and plateau.

    PYTHONPATH=. python benchmarks/bench_growth.py [--count 200] [--rounds 2] [--no-mlflow] [--json OUT]

Each correction goes through the flows that the Airflow tasks call, in one process, with a PostgreSQL and an MLflow server of its own
(SQLite, artifacts served by the server): no Airflow takes part, so its own rows and logs are not in the figures. Between rounds
retention runs with the settings `PERENNIAL_RETENTION_*` and a clock 40 days ahead, as a daily run would have done meanwhile.
A plateau needs rounds that are longer than the versions that are kept (20 by default). `--no-mlflow` uses the folder store instead.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from benchmarks.machine import table

from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.example import Example
from perennial.domain.words import Priority, Reason, Source
from perennial.flows.retention import Part, run_part
from perennial.registry.mlflow_store import MlflowStore
from perennial.retention.disk import size_of
from tests import postgres_fixture
from tests.acceptance.world import World, make_world

TASK = "news_classification"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
LATER = timedelta(days=40)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="corrections per round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--no-mlflow", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with deployment(mlflow=not arguments.no_mlflow) as (world, database, mlflow):
        facts = measure(world, database, mlflow, count=arguments.count, rounds=arguments.rounds, seed=arguments.seed)
    report(facts, arguments.count)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1))


def measure(
    world: World, database: postgres_fixture.Database, mlflow: Path | None, *, count: int, rounds: int, seed: int
) -> dict[str, Any]:
    """Sizes in bytes: at the start, after each round, and after retention."""
    stream = NewsStream(seed)
    world.ports.buffer.add_many(
        [_example(row.text, row.true_topic) for row in stream.articles(260, period=0.0, topics=EARLY)]
    )
    world.train_once()
    world.promote()
    sizes = [look(world, database, mlflow)]
    released, seconds = 0, []
    for number in range(rounds):
        for row in stream.articles(count, period=0.1, topics=EARLY):
            began = time.monotonic()
            released += correct(world, row.text, row.true_topic)
            seconds.append(time.monotonic() - began)
            print(f"round {number + 1}: {len(seconds)} corrections, {released} released", end="\r", file=sys.stderr)
        sizes.append(look(world, database, mlflow))
        gone = [run_part(world.ports, part, now=datetime.now(UTC) + LATER).counts() for part in Part]
        sizes.append(look(world, database, mlflow))
    champion = world.ports.ledger.champion("scout")
    return {
        "sizes": sizes, "released": released, "corrections": count * rounds, "seconds": sorted(seconds)[len(seconds) // 2],
        "champion": champion, "last_retention": gone, "keep_versions": world.ports.settings.retention_keep_versions,
    }  # fmt: skip


def correct(world: World, text: str, label: str) -> bool:
    """One correction, from the buffer to the champion; False when the gate held it."""
    world.ports.buffer.add(_example(text, label, priority=2))
    ref = world.claim(reason=Reason.CORRECTION)
    if ref is None:
        return False
    verdict = world.learn(ref)
    settled = world.release(ref, verdict, approve="editor" if verdict["action"] == "approve" else None)
    if settled["version"] is None:
        return False
    world.promote()
    return True


def _example(text: str, label: str, *, priority: int = 0) -> Example:
    return Example(
        agent="scout", task=TASK, input_text=text, expected_output=label, uncertainty=0.5, priority=Priority(priority),
        source=Source.CORRECTION if priority else Source.EXAMPLE, source_id="bench", example_id=uuid4(),
        importance=1.0 if priority else 0.5,
    )  # fmt: skip


def look(world: World, database: postgres_fixture.Database, mlflow: Path | None) -> dict[str, int]:
    """Bytes by place, after a VACUUM, which autovacuum does in a deployment."""
    home = world.ports.settings.home
    with psycopg.connect(database.superuser, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    gc.collect()
    found = {
        "workspaces (work)": size_of(home / "work"), "encoders (bases)": size_of(home / "bases"),
        "verified copies (cache)": size_of(home / "cache"), "agents' folders (serving)": size_of(home / "serving"),
        "database": int(row[0]), "memory of the process": _resident(),
    }  # fmt: skip
    if mlflow is None:
        return {**found, "folder store": size_of(home / "models")}
    return {
        **found,
        "MLflow artifacts": size_of(mlflow / "artifacts"),
        "MLflow database": size_of(mlflow / "mlflow.db"),
    }


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def report(facts: dict[str, Any], count: int) -> None:
    """One row per place: start, growth per correction of each round, and what was left after each retention."""
    sizes = facts["sizes"]
    rounds = (len(sizes) - 1) // 2
    header = ["what", "start, MB"]
    for number in range(1, rounds + 1):
        header += [f"kB per correction, round {number}", f"after retention {number}, MB"]
    rows = []
    for place in [*sizes[0], "all on disk"]:
        values = [_total(size) if place == "all on disk" else size[place] for size in sizes]
        cells = [f"{values[0] / 1e6:.1f}"]
        for number in range(rounds):
            before, after, kept = values[2 * number], values[2 * number + 1], values[2 * number + 2]
            cells += [f"{(after - before) / count / 1e3:.1f}", f"{kept / 1e6:.1f}"]
        rows.append([place, *cells])
    title = (
        f"{facts['corrections']} corrections in a row in {rounds} rounds, {facts['released']} released, "
        f"{facts['seconds']:.1f} s each (median), {facts['keep_versions']} versions kept, no Airflow"
    )
    table(title, header, rows)


def _total(size: dict[str, int]) -> int:
    return sum(value for place, value in size.items() if place != "memory of the process")


@contextmanager
def deployment(*, mlflow: bool) -> Iterator[tuple[World, postgres_fixture.Database, Path | None]]:
    """A deployment of its own with everything it needs, gone at the end."""
    with tempfile.TemporaryDirectory() as room, _postgres() as database:
        world = make_world(database, Path(room) / "home")
        if not mlflow:
            yield world, database, None
            return
        place = Path(room) / "mlflow"
        with _mlflow(place) as url:
            store = MlflowStore(url, f"sqlite:///{place}/mlflow.db")
            yield World(replace(world.ports, models=store)), database, place


@contextmanager
def _postgres() -> Iterator[postgres_fixture.Database]:
    server = postgres_fixture.postgres_server.__wrapped__()  # type: ignore[attr-defined]
    running = next(server)
    database = postgres_fixture.database.__wrapped__(running)  # type: ignore[attr-defined]
    try:
        yield next(database)
    finally:
        for one in (database, server):
            next(one, None)


@contextmanager
def _mlflow(place: Path) -> Iterator[str]:
    place.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{place}/mlflow.db",
             "--artifacts-destination", str(place / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError("MLflow did not start; is the port free?")


if __name__ == "__main__":
    main()
