"""How long the pages of what stands aside, of validations and of rollouts take in a large buffer.

    PYTHONPATH=. python benchmarks/bench_quarantine.py [--rows 1000000] [--aside 0.2] [--json OUT]

Starts a PostgreSQL of its own and fills it by SQL: 20 agents, of which one has half of what stands aside.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
from benchmarks.bench_buffer import database, record, server
from benchmarks.machine import spread, table
from pydantic import SecretStr

from perennial.domain.words import AsideAction, State
from perennial.ingest.aside import AsideKey, AsideOrder
from perennial.pages import quarantine, rollout, validation
from perennial.pages.identity import User
from perennial.pages.page import Asked
from perennial.pages.roles import Role
from perennial.settings import Settings
from perennial.wiring import ports_from

AGENTS = ("scout", *(f"agent{number:02}" for number in range(1, 20)))
REPEATS = 7

FILL = """
INSERT INTO perennial.examples (example_id, agent, task, state, input_text, expected_output, uncertainty, importance, priority, source,
    source_id, content_digest, input_digest, label_digest, refusals, reason, created_at, admitted_at)
SELECT gen_random_uuid(), CASE WHEN aside AND n %% 2 = 0 THEN 'scout' ELSE (%(agents)s::text[])[1 + n %% 20] END, 'topic',
    CASE WHEN NOT aside THEN 'trained' WHEN n %% 5 = 0 THEN 'quarantined' WHEN n %% 5 = 1 THEN 'unlabelled'
         ELSE 'held' END::perennial.example_state,
    CASE WHEN aside AND n %% 5 = 0 THEN NULL ELSE n || repeat(' rates fell after the bank said it would wait', 12) END,
    to_jsonb('label ' || n %% 7), 0.5, 0.5, 0, 'example', 'sender ' || n %% 1000, sha256(int8send(n)), sha256(int8send(n)), '\\x01', 0,
    CASE WHEN NOT aside OR n %% 5 = 1 THEN '' WHEN n %% 5 = 0 THEN (ARRAY['too_long', 'unknown_label', 'personal_data_left'])[1 + n %% 3]
         ELSE (ARRAY['source_cap', 'label_conflict', 'held: slices: topic: accuracy fell', 'near_duplicate_flood'])[1 + n %% 4] END,
    now() - make_interval(secs => n), now()
FROM (SELECT n, n %% 1000 < %(aside)s * 1000 AS aside FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n) numbered
"""


def fill(url: str, rows: int, aside: float) -> float:
    began, chunk = time.perf_counter(), 100_000
    with psycopg.connect(url) as connection:
        for first in range(0, rows, chunk):
            values = {"agents": list(AGENTS), "aside": aside, "first": first, "last": min(first + chunk, rows) - 1}
            connection.execute(FILL, values)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE perennial.examples")
    return time.perf_counter() - began


def measured(work: Callable[[], Any]) -> list[float]:
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--aside", type=float, default=0.2, help="share of the rows that stand aside")
    parser.add_argument("--json")
    given = parser.parse_args()
    with server() as host, database(host) as urls:
        ports = ports_from(Settings(database_url=SecretStr(urls.app)))
        ports.buffer.sync_agents([record(agent) for agent in AGENTS])
        print(f"filled in {fill(urls.superuser, given.rows, given.aside):.0f} s")
        asked = Asked(
            user=User(id="ana", name="Ana", standing=Role.EDITOR), role=Role.EDITOR, base="", now=datetime.now(UTC)
        )
        key = AsideKey(state=State.HELD, task="topic", code="source_cap")
        rows = quarantine.gather(ports, "scout", key=key).rows
        deep = rows[0].number // 4
        assert ports.aside is not None
        store = ports.aside

        def order(action: AsideAction, of: AsideKey) -> AsideOrder:
            return AsideOrder(agent="scout", action=action, key=of, actor="ana", why="bench")

        back = AsideKey(state=State.QUARANTINED, task="topic", code="too_long")
        figures = {
            "quarantine, all agents": measured(lambda: quarantine.render_all(quarantine.gather_all(ports), asked)),
            "quarantine of an agent, newest": measured(lambda: quarantine.render(quarantine.gather(ports, "scout"), asked)),
            "one reason, first page": measured(lambda: quarantine.render(quarantine.gather(ports, "scout", key=key), asked)),
            "one reason, deep page": measured(lambda: quarantine.render(quarantine.gather(ports, "scout", key=key, before=deep), asked)),
            "rollouts of an agent": measured(lambda: rollout.render(rollout.gather(ports, "scout"), asked)),
            "validations, all agents": measured(lambda: validation.render_list(validation.gather_all(ports), asked)),
            "release 500 held rows": measured(lambda: store.settle(order(AsideAction.RELEASE, key), limit=500)),
            "release 500 quarantined rows": measured(lambda: store.settle(order(AsideAction.RELEASE, back), limit=500)),
        }  # fmt: skip
    lines = [[name, spread(values, 0)] for name, values in figures.items()]
    table(
        f"Pages at {given.rows:,} examples, {given.aside:.0%} of them aside", ["page", "ms, median [min..max]"], lines
    )
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
