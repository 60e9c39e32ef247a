"""How long the pages take on a large fleet: every page asked through the real app, over a real PostgreSQL that this script fills.

    PYTHONPATH=include:. .venv/bin/python benchmarks/bench_pages.py [--agents 20] [--versions 1000] [--examples 1000000] [--rounds 30]

The clock runs from the request to the last byte of the answer, in one process with the app, one request at a time: no network, no
browser. Where other work shares the processor, the CPU columns (median and mean, ms) say what a page costs. Each round asks about other
agents and versions. The database was vacuumed once, as autovacuum would; its server is fresh.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from benchmarks.machine import table
from psycopg.types.json import Jsonb
from starlette.testclient import TestClient

from perennial.flows.fleet_sync import sync
from perennial.flows.training_switch import DagFacts, MemoryDags
from perennial.pages.app import PAGES, pages_app
from perennial.pages.identity import MemoryIdentity, User
from perennial.pages.overview import PostgresOverview
from perennial.pages.page import Site
from perennial.pages.roles import Role
from perennial.settings import Settings
from perennial.storage.database import Database
from perennial.wiring import ports_from
from tests import postgres_fixture
from tests.pages_world import gate_report
from tests.rollout_world import _record

FILE = """from perennial.fleet import Agent, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(name="{name}", owner="newsroom", tasks=(Task(name="topic"), Task(name="quality")), trainer=EwcText())
"""
EXAMPLES = """
INSERT INTO perennial.examples (example_id, agent, task, state, input_text, expected_output, uncertainty, importance, priority, source,
    content_digest, input_digest, created_at, admitted_at, trained_at, holdout, model_version)
SELECT gen_random_uuid(), %(prefix)s || lpad((n %% %(agents)s)::text, 2, '0'), CASE WHEN n %% 3 = 0 THEN 'quality' ELSE 'topic' END,
    kind.state::perennial.example_state, 'A sentence of about the usual length about the match of the day, number ' || n, '"sports"',
    random(), 0.5,
    n %% 2, 'gateway', sha256(('c' || n)::bytea), sha256(('i' || n)::bytea), now() - n * interval '1 second', now(),
    now() - n * interval '1 second', kind.holdout, CASE WHEN kind.state = 'trained' THEN '1.0.0' END
FROM generate_series(1, %(examples)s) AS n CROSS JOIN LATERAL (SELECT
    CASE WHEN n %% 100 < 80 THEN 'trained' WHEN n %% 100 < 85 THEN 'superseded' WHEN n %% 100 < 90 THEN 'ready' 
         WHEN n %% 100 < 94 THEN 'unlabelled'
         WHEN n %% 100 < 97 THEN 'quarantined' ELSE 'held' END AS state, n %% 100 BETWEEN 85 AND 89 AS holdout) AS kind
"""


@contextmanager
def database() -> Iterator[postgres_fixture.Database]:
    """A migrated database on a server of its own."""
    servers = postgres_fixture.postgres_server.__wrapped__()  # type: ignore[attr-defined]
    try:
        databases = postgres_fixture.database.__wrapped__(next(servers))  # type: ignore[attr-defined]
        yield next(databases)
    finally:
        servers.close()


def fill(url: str, names: list[str], versions: int, examples: int, seed: int = 8) -> list[tuple[str, str, UUID]]:
    """Versions with jobs, reports, rollouts and history spread over the agents; rows in every state. Returns what was released."""
    draw = random.Random(seed)
    made: list[tuple[str, str, UUID]] = []
    report = gate_report()
    one = report["tables"][0]["slices"][0]
    report["tables"][0]["slices"] += [
        {**one, "name": f"label {number}", "title": f"label {number}"} for number in range(30)
    ]
    report["tables"].append({**report["tables"][0], "task": "quality"})
    with psycopg.connect(url) as connection:
        connection.execute(
            "SET session_replication_role = replica"
        )  # rows alone; the rules of the way in are not measured here
        connection.execute(EXAMPLES, {"prefix": "agent_", "agents": len(names), "examples": examples})
        ids = [row[0] for row in connection.execute("SELECT example_id FROM perennial.examples LIMIT 20000")]
        for number in range(versions):
            agent, version, job = (
                names[number % len(names)],
                f"1.0.{number // len(names)}",
                UUID(int=draw.getrandbits(128)),
            )
            made.append((agent, version, job))
            report["tables"][0]["changed_ids"] = {
                "fixed": [str(one) for one in ids[:8]],
                "broken": [str(one) for one in ids[8:16]],
            }
            base = f"1.0.{number // len(names) - 1}" if number >= len(names) else None
            manifest = {
                **_record(), "agent": agent, "version": version, "job_id": str(job),
                "metrics": {f"topic.metric_{name}": 0.9 for name in range(60)},
            }  # fmt: skip
            connection.execute(
                """INSERT INTO perennial.jobs (job_id, agent, run_id, status, reason, mode, version, note, started_at, completed_at)
                   VALUES (%s, %s, %s, 'completed', 'threshold', 'online', %s, 'trained', now(), now())""",
                (job, agent, f"run-{number}", version),
            )
            connection.execute(
                """INSERT INTO perennial.versions (agent, version, digest, job_id, uri, mlflow_run_id, manifest, base_version)
                   VALUES (%s, %s, %s, %s, 'runs:/x', 'abc', %s, %s)""",
                (
                    agent,
                    version,
                    f"digest-{number}",
                    job,
                    Jsonb(manifest),
                    base,
                ),
            )
            connection.execute(
                """INSERT INTO perennial.gate_reports (agent, job_id, attempt, content_digest, action, report)
                   VALUES (%s, %s, 1, 'c', %s, %s)""",
                (agent, job, "hold" if number % 9 == 0 else "pass", Jsonb(report)),
            )
            connection.execute(
                """INSERT INTO perennial.version_examples (agent, version, task, role, ids)
                   VALUES (%s, %s, 'topic', 'new', %s), (%s, %s, 'topic', 'replay', %s), (%s, %s, 'topic', 'holdout', %s)""",
                (
                    agent,
                    version,
                    draw.sample(ids, 50),
                    agent,
                    version,
                    draw.sample(ids, 200),
                    agent,
                    version,
                    draw.sample(ids, 1000),
                ),
            )
            for alias in ("candidate", "champion"):
                connection.execute(
                    "INSERT INTO perennial.alias_moves (agent, alias, version, actor, reason) VALUES (%s, %s, %s, 'perennial', 'rollout')",
                    (agent, alias, version),
                )
            connection.execute(
                """INSERT INTO perennial.rollouts (agent, version, plan, state, step, weight, run_id, reason, started_at, step_at)
                   VALUES (%s, %s, %s, %s, 3, 1, %s, '', now(), now())""",
                (agent, version, Jsonb(_plan()), "reverted" if number % 9 == 0 else "done", f"rollout-{number}"),
            )
            connection.execute(
                """INSERT INTO perennial.serving_history (agent, champion, weight, epoch, changed_at)
                   SELECT %s, %s, 0, n, now() FROM generate_series(1, 5) AS n""",
                (agent, version),
            )
            connection.execute(
                """INSERT INTO perennial.performance_history (agent_name, model_name, accuracy_after, examples_trained, version)
                   VALUES (%s, %s, %s, 50, %s)""",
                (agent, f"{agent}-{version}", 0.8 + draw.random() / 10, version),
            )
        for agent in names:
            newest = [version for name, version, _ in made if name == agent][-1:]
            connection.execute(
                """INSERT INTO perennial.serving (agent, champion, epoch) VALUES (%s, %s, 5)
                   ON CONFLICT (agent) DO UPDATE SET champion = excluded.champion""",
                (agent, newest[0] if newest else None),
            )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return made


def _plan() -> dict[str, Any]:
    from perennial.rollout.machine import Plan

    return dict(json.loads(json.dumps(Plan(steps=(0.05, 0.25, 1.0)).as_record())))


def server_seconds(server: postgres_fixture.Server) -> float:
    """CPU seconds that the server's processes took until now, those that ended included."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        if postgres_fixture._works_in(process, server.data):
            try:
                values = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile; its parent counts it
            ticks += sum(int(value) for value in values[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def paths(made: list[tuple[str, str, UUID]], draw: random.Random) -> dict[str, str]:
    """One address per page, about a version drawn by chance."""
    agent, version, job = draw.choice(made)
    return {
        "Fleet": "/fleet",
        "Version (champion)": f"/version?agent={agent}",
        "Version (any)": f"/version?agent={agent}&version={version}",
        "Version (of a job)": f"/version?agent={agent}&version={job}",
        "Explain": f"/explain?agent={agent}&at={time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}",
        **{
            page.title: f"{page.path}?agent={agent}"
            for page in PAGES
            if page.title not in {"Fleet", "Version", "Explain"}
        },
    }


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("agents", 20), ("versions", 1000), ("examples", 1_000_000), ("rounds", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    names = [f"agent_{number:02d}" for number in range(asked.agents)]
    with database() as made, tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "fleet"
        folder.mkdir()
        for name in names:
            (folder / f"{name}.py").write_text(FILE.format(name=name))
        settings = Settings(home=Path(room), fleet_folder=folder, database_url=made.app, admit_database_url=made.admit)
        ports = ports_from(settings)
        sync(ports)
        begun = time.perf_counter()
        released = fill(made.superuser, names, asked.versions, asked.examples)
        print(f"filled in {time.perf_counter() - begun:.0f} s")
        dags = MemoryDags({f"train_{name}": DagFacts(paused=False) for name in names})
        site = Site(ports=ports, overview=PostgresOverview(Database(made.app, max_size=4)), dags=dags)
        identify = MemoryIdentity({"token": User(id="bench", name="bench", standing=Role.OPERATOR)})
        draw = random.Random(3)
        taken: dict[str, list[float]] = {}
        work: dict[str, list[float]] = {}
        store: dict[str, list[float]] = {}
        sizes: dict[str, int] = {}
        with TestClient(
            pages_app(lambda: site, identify=identify), headers={"authorization": "Bearer token"}
        ) as client:
            for number in range(asked.rounds + 1):
                for page, path in paths(released, draw).items():
                    served = server_seconds(made.server)
                    begun, busy = time.perf_counter(), time.process_time()
                    answer = client.get(path)
                    seconds, worked = time.perf_counter() - begun, time.process_time() - busy
                    assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
                    sizes[page] = len(answer.content)
                    if number:  # the first of all opens connections
                        taken.setdefault(page, []).append(seconds * 1000)
                        work.setdefault(page, []).append(worked * 1000)
                        store.setdefault(page, []).append((server_seconds(made.server) - served) * 1000)
                    else:
                        taken.setdefault(f"{page}, first", []).append(seconds * 1000)
        title = (
            f"Pages at {asked.agents} agents, {asked.versions} versions, {asked.examples} examples: ms to the last byte"
        )
        rows = [
            (page, f"{statistics.median(times):.0f}", f"{sorted(times)[int(0.95 * (len(times) - 1))]:.0f}", f"{max(times):.0f}",
             f"{statistics.median(work[page]):.0f}" if page in work else "",
             f"{statistics.mean(store[page]):.0f}" if page in store else "", f"{sizes.get(page.removesuffix(', first'), 0) / 1024:.0f}")
            for page, times in taken.items()
        ]  # fmt: skip
        table(title, ("page", "median", "p95", "most", "CPU of the app", "CPU of PostgreSQL", "KiB"), rows)


if __name__ == "__main__":
    main()
