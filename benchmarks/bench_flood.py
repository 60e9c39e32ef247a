"""A flood at the ingest API while a training runs: what is taken, what is refused and how, and whether anything else suffers.

    PYTHONPATH=include:. .venv/bin/python benchmarks/bench_flood.py [--minutes 5] [--times 5] [--connections 128] [--json OUT]

A stack of its own with two agents: one trains again and again, the other gets the flood. First the capacity: a few seconds in which
16 connections each send their next example as soon as the last one is answered. Then ``--times`` as many requests a second are offered
over ``--connections`` connections. The generator runs on the same cores, niced by 10, so it takes what the others leave; the requests
that it really offered are in the table. Afterwards every acknowledged example is looked for in PostgreSQL, and Airflow is asked for
tasks that failed, that were tried again and that it believed dead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
from benchmarks.bench_stack import airflow, processor_seconds
from benchmarks.machine import machine, table
from benchmarks.own_stack import TASK, first_champion, own_stack, world_of, write_agent

from perennial.demo.material import generated
from perennial.demo.plane import Plane, wait_for
from perennial.errors import PerennialError
from perennial.ingest.door import Door
from perennial.settings import load_settings
from perennial.stack.home import Home
from perennial.stack.state import read_state

TRAINED, FLOODED = "desk", "flood"
NEVER = 1_000_000  # rows that make the flooded agent due
TEXT = "A flood sends this text again and again with another number, as a crawler without manners does: {number}. " * 3
PAGES = {"dags": "/ui/dags?limit=50", "home": "/", "health": "/api/v2/monitor/health", "fleet": "/perennial/fleet"}


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--times", type=float, default=5.0, help="what is offered, in capacities")
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--generate", type=float, default=0.0, help=argparse.SUPPRESS)  # a child: seconds
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        os.nice(10)
        found = asyncio.run(generate(arguments.generate, arguments.connections, arguments.rate))
        arguments.out.write_text(json.dumps(found))
        return
    with own_stack(TRAINED) as (place, fleet):
        write_agent(fleet, FLOODED, threshold=NEVER)
        facts = {"machine": machine(), **measure(place, arguments)}
    report(facts)
    if arguments.json:
        arguments.json.write_text(json.dumps({**facts, "acknowledged": len(facts["acknowledged"])}, indent=1))


# -- the generator: a process of its own, with sockets and no library, so that it takes little of what it measures


async def generate(seconds: float, connections: int, rate: float) -> dict[str, Any]:
    """Send for ``seconds``; ``rate`` requests a second over all connections, 0: each as soon as the last is answered."""
    place = urlsplit(load_settings().data_plane_url)
    host, port = str(place.hostname), int(place.port or 80)
    counts: Counter[str] = Counter()
    acknowledged: list[str] = []
    waits: list[float] = []
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        pause = connections / rate if rate else 0.0
        due = time.monotonic() + pause * number / connections
        while time.monotonic() < end:
            if rate:
                # a generator that falls behind does not make up for it in a burst
                due = max(due + pause, time.monotonic() - 1.0)
                await asyncio.sleep(due - time.monotonic())
            identity = str(uuid4())
            try:
                if writer is None or reader is None:
                    reader, writer = await asyncio.open_connection(host, port)
                began = time.monotonic()
                writer.write(request(host, identity))
                await writer.drain()
                status, headers, body = await asyncio.wait_for(answer(reader), 60)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                counts[f"connection: {type(error).__name__}"] += 1
                if writer is not None:
                    writer.close()
                reader = writer = None
                continue
            counts[str(status)] += 1
            waits.append(time.monotonic() - began)
            if status == 200:
                acknowledged.append(str(json.loads(body)["results"][0]["example_id"]))
            elif status == 429 and b"retry-after" not in headers:
                counts["429 without Retry-After"] += 1
            if b"connection: close" in headers:
                writer.close()
                reader = writer = None

    began, busy = time.monotonic(), time.process_time()
    await asyncio.gather(*(one(number) for number in range(connections)))
    waits.sort()
    return {
        "counts": dict(counts), "acknowledged": acknowledged, "seconds": time.monotonic() - began,
        "generator_cores": (time.process_time() - busy) / (time.monotonic() - began),
        "answer_ms": [1000 * waits[int(share * (len(waits) - 1))] for share in (0.5, 0.95, 1.0)] if waits else [],
    }  # fmt: skip


def request(host: str, identity: str) -> bytes:
    """One example that nobody sent before."""
    body = json.dumps({
        "agent_name": FLOODED, "task_type": TASK, "input_text": TEXT.format(number=identity), "expected_output": "world",
        "uncertainty_score": 0.5, "example_id": identity, "source_id": "flood",
    }).encode()  # fmt: skip
    head = f"POST /v1/examples HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, headers in small letters, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
    return int(head.split(b" ", 2)[1]), head, await reader.readexactly(int(length or 0))


def flood(seconds: float, connections: int, rate: float, out: Path) -> subprocess.Popen[bytes]:
    """Start the generator."""
    words = ["--generate", str(seconds), "--connections", str(connections), "--rate", str(rate), "--out", str(out)]
    return subprocess.Popen([sys.executable, __file__, *words])


# -- what is watched meanwhile


class Watch:
    """Asks Airflow's pages in turn, and keeps a training of one agent under way, until it is left."""

    def __init__(self, place: Home) -> None:
        self._place = place
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._pages, self._trainings)]
        self.pages: dict[str, list[float]] = {name: [] for name in PAGES}
        self.bad_pages: Counter[str] = Counter()
        self.trainings: Counter[str] = Counter()

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=600)

    def _pages(self) -> None:
        with airflow(self._place) as link:
            while not self._stop.is_set():
                for name, path in PAGES.items():
                    began = time.monotonic()
                    try:
                        status = link.get(path).status_code
                    except httpx.HTTPError as error:
                        self.bad_pages[f"{name}: {type(error).__name__}"] += 1
                        continue
                    self.pages[name].append(time.monotonic() - began)
                    if status >= 400:
                        self.bad_pages[f"{name}: {status}"] += 1
                self._stop.wait(2.0)

    def _trainings(self) -> None:
        with airflow(self._place) as link:
            while not self._stop.is_set():
                try:
                    self.trainings[self._training(link)] += 1
                except (httpx.HTTPError, PerennialError) as error:
                    self.trainings[f"not followed: {type(error).__name__}"] += 1

    def _training(self, link: httpx.Client) -> str:
        """One forced training with new rows, to its end; the state of its run."""
        material = generated(int(time.time()) % 100_000, TASK)
        add_rows([
            {"agent_name": TRAINED, "task_type": TASK, "input_text": truth.text, "expected_output": truth.label,
             "uncertainty_score": 0.5, "source_id": "archive"} for truth in material.start[:60]
        ])  # fmt: skip
        asked = {"logical_date": None, "conf": {"force": True, "reason": "request", "mode": "online"}}
        run = link.post(f"/api/v2/dags/train_{TRAINED}/dagRuns", json=asked).raise_for_status().json()["dag_run_id"]
        while True:
            state = str(link.get(f"/api/v2/dags/train_{TRAINED}/dagRuns/{run}").raise_for_status().json()["state"])
            if state in {"success", "failed"}:
                return state
            time.sleep(1.0)


def add_rows(rows: list[dict[str, Any]]) -> None:
    """Rows for the training, as the client writes them: into the store, past the flooded door."""
    buffer = world_of().buffer
    door = Door(buffer)
    buffer.add_many([door.check_record(row) for row in rows])


def measure(place: Home, arguments: argparse.Namespace) -> dict[str, Any]:
    """Champion, capacity, flood, and what it left."""
    settings, world = load_settings(), world_of()
    said(
        f"first champion after {first_champion(place, world, Plane(settings.data_plane_url, TRAINED), generated(101, TASK)):.0f} s"
    )
    wait_for("the flooded agent", lambda: FLOODED in world.buffer.fleet(), seconds=60)
    out = place.root / "flood.json"
    flood(10.0, 16, 0.0, out).wait()
    first = json.loads(out.read_text())
    capacity = first["counts"].get("200", 0) / first["seconds"]
    said(f"capacity {capacity:.0f} requests a second")
    before_pages, earlier = page_times(place), restarts(place)
    began, busy = datetime.now(UTC), processor_seconds(place)
    with Watch(place) as watch:
        child = flood(60 * arguments.minutes, arguments.connections, capacity * arguments.times, out)
        child.wait()
        flooded = json.loads(out.read_text())
        spent = {
            name: (used - busy.get(name, used)) / flooded["seconds"] for name, used in processor_seconds(place).items()
        }
        pages, bad = {name: list(times) for name, times in watch.pages.items()}, dict(watch.bad_pages)
    acknowledged = [*first["acknowledged"], *flooded["acknowledged"]]
    return {
        "capacity": capacity, "offered": sum(flooded["counts"].values()) / flooded["seconds"], "counts": flooded["counts"],
        "connections": arguments.connections, "minutes": arguments.minutes, "answer_ms": flooded["answer_ms"],
        "generator_cores": flooded["generator_cores"], "cores": spent, "acknowledged": acknowledged,
        "missing": missing(acknowledged), "tasks": tasks(place, began), "trainings": dict(watch.trainings),
        "restarts": {name: number - earlier.get(name, 0) for name, number in restarts(place).items() if number > earlier.get(name, 0)},
        "pages_before": before_pages, "pages": pages, "bad_pages": bad,
    }  # fmt: skip


def page_times(place: Home) -> dict[str, list[float]]:
    """Each page a few times before the flood."""
    found: dict[str, list[float]] = {name: [] for name in PAGES}
    with airflow(place) as link:
        for _ in range(6):
            for name, path in PAGES.items():
                began = time.monotonic()
                link.get(path)
                found[name].append(time.monotonic() - began)
    return {name: times[1:] for name, times in found.items()}


def missing(ids: list[str]) -> int:
    """Acknowledged examples that PostgreSQL does not have."""
    with psycopg.connect(load_settings().app_url()) as connection:
        known = 0
        for index in range(0, len(ids), 5000):
            part = [UUID(one) for one in ids[index : index + 5000]]
            row = connection.execute(
                "SELECT count(*) FROM perennial.examples WHERE example_id = ANY (%s)", (part,)
            ).fetchone()
            known += row[0] if row else 0
    return len(set(ids)) - known


def tasks(place: Home, since: datetime) -> dict[str, Any]:
    """Task instances that began since then, by state, and what Airflow gave up or tried again."""
    found: list[dict[str, Any]] = []
    ask: dict[str, str | int]
    with airflow(place) as link:
        while True:
            ask = {"start_date_gte": since.isoformat(), "limit": 100, "offset": len(found)}
            page = (
                link.get("/api/v2/dags/~/dagRuns/~/taskInstances", params=ask)
                .raise_for_status()
                .json()["task_instances"]
            )
            found += page
            if len(page) < 100:
                break
        ask = {"event": "heartbeat timeout", "limit": 1}
        lost = link.get("/api/v2/eventLogs", params=ask).raise_for_status().json()["total_entries"]
    again = [one for one in found if one["try_number"] > 1]
    failed = [one for one in found if one["state"] in {"failed", "upstream_failed"}]
    named = {f"{one['dag_id']}.{one['task_id']}: {one['state']}, try {one['try_number']}" for one in (*failed, *again)}
    states = dict(Counter(str(one["state"]) for one in found))
    return {"states": states, "failed": len(failed), "again": len(again), "lost": lost, "named": sorted(named)}


def restarts(place: Home) -> dict[str, int]:
    """Parts of the stack that the supervisor had to start again."""
    return {part.name: part.restarts for part in read_state(place).parts.values() if part.restarts}


def spread_ms(times: list[float]) -> str:
    """Median, 95th percentile and longest, in milliseconds."""
    ranked = sorted(times)
    if not ranked:
        return "never answered"
    return " / ".join(f"{1000 * ranked[int(share * (len(ranked) - 1))]:.0f}" for share in (0.5, 0.95, 1.0))


def report(facts: dict[str, Any]) -> None:
    """The table."""
    counts, done = facts["counts"], facts["tasks"]
    errors = sum(number for name, number in counts.items() if name.startswith("connection"))
    bad = sum(number for name, number in counts.items() if name.isdigit() and name.startswith("5"))
    strange = {name: number for name, number in counts.items() if name.isdigit() and name not in {"200", "429"}}
    times = facts["offered"] / facts["capacity"]
    rows: list[tuple[object, ...]] = [
        ("capacity, 16 connections, requests/s", f"{facts['capacity']:.0f}", ""),
        (f"offered over {facts['connections']} connections, requests/s", f"{facts['offered']:.0f} ({times:.1f}x)", "5x"),
        ("accepted", counts.get("200", 0), ""),
        ("429", counts.get("429", 0), ""),
        ("429 without Retry-After", counts.get("429 without Retry-After", 0), "0"),
        ("5xx", bad, "0"),
        ("other answers", strange or 0, "0"),
        ("connection errors", errors, "0"),
        ("acknowledged and missing later", facts["missing"], "0"),
        ("answers, ms, p50 / p95 / most", " / ".join(f"{one:.0f}" for one in facts["answer_ms"]), ""),
        ("Airflow's tasks meanwhile", ", ".join(f"{n} {state}" for state, n in sorted(done["states"].items())), ""),
        ("tasks failed / tried again / lost to heartbeats", f"{done['failed']} / {done['again']} / {done['lost']}", "0"),
        ("parts restarted by the supervisor", facts["restarts"] or 0, "0"),
        ("trainings that ended meanwhile", ", ".join(f"{n} {state}" for state, n in facts["trainings"].items()), "success"),
        *((f"page {name}, ms, p50 / p95 / most, before", spread_ms(facts["pages_before"][name]), "") for name in PAGES),
        *((f"page {name}, ms, p50 / p95 / most, in the flood", spread_ms(facts["pages"][name]), "1000") for name in PAGES),
        ("pages that failed", facts["bad_pages"] or 0, "0"),
        ("cores of the generator (nice 10)", f"{facts['generator_cores']:.2f}", ""),
        *((f"cores of {name}", f"{used:.2f}", "") for name, used in sorted(facts["cores"].items()) if used >= 0.01),
    ]  # fmt: skip
    table(f"A flood of {facts['minutes']:g} minutes during a training", ("what", "figure", "asked"), rows)
    for line in done["named"]:
        said(line)


def said(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
