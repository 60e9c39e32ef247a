"""How to keep which examples made which version: a row per id, an array per task and role, or the ids inside the manifest.

    PYTHONPATH=include:. python benchmarks/bench_provenance.py [--versions 1000] [--examples 300] [--holdout 1000]

On a PostgreSQL of its own. Each version has new rows of its own, replays older ones, and is judged on a holdout that changes slowly,
as the loop makes them. Queries are timed at the server, warm, median of 50 different ids.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from benchmarks.machine import table
from psycopg.types.json import Jsonb

from tests.postgres_fixture import postgres_server


@dataclass(frozen=True)
class Made:
    """One version's ids by role."""

    version: int
    roles: dict[str, list[UUID]]


def versions(count: int, examples: int, holdout: int, seed: int = 8) -> list[Made]:
    """Versions whose new rows are a third of their examples; 1 % of the holdout is replaced from one to the next."""
    draw = random.Random(seed)

    def fresh() -> UUID:
        return UUID(int=draw.getrandbits(128))

    past: list[UUID] = [fresh() for _ in range(examples)]
    judges = [fresh() for _ in range(holdout)]
    made = []
    for version in range(count):
        new = [fresh() for _ in range(examples // 3)]
        replay = draw.sample(past[-5000:], min(len(past), examples - len(new)))
        for _ in range(max(1, holdout // 100) if holdout else 0):
            judges[draw.randrange(holdout)] = fresh()
        made.append(Made(version, {"new": new, "replay": replay, "holdout": list(judges)}))
        past += new
    return made


ROWS = """CREATE TABLE by_row (version int, role text, place int, example_id uuid, PRIMARY KEY (version, role, place));
          CREATE INDEX ON by_row (example_id)"""
ARRAYS = """CREATE TABLE by_array (version int, role text, ids uuid[], PRIMARY KEY (version, role));
            CREATE INDEX ON by_array USING gin (ids) WITH (fastupdate = off)"""
LISTS = """CREATE TABLE by_list (version int PRIMARY KEY, manifest jsonb);
           CREATE INDEX ON by_list USING gin (manifest jsonb_path_ops) WITH (fastupdate = off)"""


def put_rows(connection: psycopg.Connection[Any], made: Made) -> None:
    """A row per id."""
    values = [
        (made.version, role, place, identity) for role, ids in made.roles.items() for place, identity in enumerate(ids)
    ]
    with connection.cursor() as cursor, cursor.copy("COPY by_row FROM STDIN") as copy:
        for value in values:
            copy.write_row(value)


def put_arrays(connection: psycopg.Connection[Any], made: Made) -> None:
    """An array per role."""
    for role, ids in made.roles.items():
        connection.execute("INSERT INTO by_array VALUES (%s, %s, %s)", (made.version, role, ids))


def put_lists(connection: psycopg.Connection[Any], made: Made) -> None:
    """One document."""
    plain = {role: [str(identity) for identity in ids] for role, ids in made.roles.items()}
    connection.execute("INSERT INTO by_list VALUES (%s, %s)", (made.version, Jsonb(plain)))


def timed(connection: psycopg.Connection[Any], statement: str, values: Sequence[Sequence[object]]) -> float:
    """Median milliseconds of a query over different values, after one round to warm up."""
    found = []
    for number, value in enumerate([*values, *values]):
        began = time.perf_counter()
        connection.execute(statement, value).fetchall()
        if number >= len(values):
            found.append(1000 * (time.perf_counter() - began))
    return statistics.median(found)


def measure(
    connection: psycopg.Connection[Any], name: str, create: str, put: Callable[..., None], made: list[Made],
    of_example: str, of_version: str, ask: Callable[[UUID], Sequence[object]],
) -> tuple[str, ...]:  # fmt: skip
    """One design: size, time to write one version, time of both queries."""
    connection.execute(create)
    connection.commit()
    seconds = []
    for one in made:
        began = time.perf_counter()
        put(connection, one)
        connection.commit()
        seconds.append(time.perf_counter() - began)
    connection.execute(f"ANALYZE {name}")
    row = connection.execute(f"SELECT pg_total_relation_size('{name}')").fetchone()
    assert row is not None
    draw = random.Random(3)
    learned = [draw.choice(draw.choice(made).roles["new"]) for _ in range(50)]
    judged = [draw.choice(one.roles["holdout"]) for one in draw.sample(made, 50) if one.roles["holdout"]]
    numbers = [(draw.randrange(len(made)),) for _ in range(50)]
    return (
        name, f"{row[0] / 2**20:.0f}", f"{1000 * statistics.median(seconds):.1f}",
        f"{timed(connection, of_example, [ask(one) for one in learned]):.2f}",
        f"{timed(connection, of_example, [ask(one) for one in judged]):.2f}" if judged else "-",
        f"{timed(connection, of_version, numbers):.2f}",
    )  # fmt: skip


def main() -> None:
    """Run and print one table per load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--holdout", type=int, default=1000)
    arguments = parser.parse_args()
    servers = postgres_server.__wrapped__()  # type: ignore[attr-defined]
    server = next(servers)
    try:
        for holdout in (0, arguments.holdout):
            made = versions(arguments.versions, arguments.examples, holdout)
            with psycopg.connect(server.url("postgres"), autocommit=False) as connection:
                connection.execute(f"CREATE SCHEMA load_{holdout}; SET search_path = load_{holdout}")
                rows = [
                    measure(
                        connection, "by_row", ROWS, put_rows, made,
                        "SELECT version, role FROM by_row WHERE example_id = %s",
                        "SELECT role, example_id FROM by_row WHERE version = %s ORDER BY role, place", lambda one: (one,),
                    ),
                    measure(
                        connection, "by_array", ARRAYS, put_arrays, made,
                        "SELECT version, role FROM by_array WHERE ids @> ARRAY[%s]::uuid[]",
                        "SELECT role, i FROM by_array, unnest(ids) WITH ORDINALITY AS u (i, place) WHERE version = %s"
                        " ORDER BY role, place", lambda one: (one,),
                    ),
                    measure(
                        connection, "by_list", LISTS, put_lists, made,
                        "SELECT version FROM by_list WHERE manifest @> %s OR manifest @> %s OR manifest @> %s",
                        "SELECT manifest FROM by_list WHERE version = %s",
                        lambda one: tuple(Jsonb({role: [str(one)]}) for role in ("new", "replay", "holdout")),
                    ),
                ]  # fmt: skip
            table(
                f"{arguments.versions} versions of {arguments.examples} examples and {holdout} holdout rows each",
                (
                    "kept", "MB with indexes", "ms to write one version", "ms: versions of a trained row",
                    "ms: versions of a holdout row", "ms: examples of a version",
                ),
                rows,
            )  # fmt: skip
    finally:
        next(servers, None)


if __name__ == "__main__":
    main()
