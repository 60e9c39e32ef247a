"""Releases versions of every kind, then makes each of them again in another process and compares the digests.

    PYTHONPATH=. .venv/bin/python benchmarks/bench_reproduce.py [--versions 20] [--batches 2] [--data FILE.jsonl]

On a PostgreSQL of its own, with real models and real signatures, without Airflow. A first version of two tasks, then corrections through
the fast lane, updates with new rows, and ``--batches`` trainings that move the encoder. ``--data``: rows with ``text`` and ``label`` in
place of generated news. A candidate that the gates hold makes no version; the next one is tried. Exits 1 when a digest differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from benchmarks.machine import spread, table

from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.example import Example
from perennial.domain.words import Mode, Priority, Reason, Source
from perennial.fleet import loader
from perennial.flows import rollout, train
from perennial.flows.reproduce import Reproduction, reproduce
from perennial.settings import Settings
from perennial.wiring import ports_from
from tests import postgres_fixture
from tests.acceptance.world import World, make_world

NEWS, MOOD = "news_classification", "sentiment"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)


@dataclass(frozen=True)
class Text:
    """A text with its label, and its mood where it is known."""

    text: str
    label: str
    mood: str | None = None


def generated(seed: int) -> Iterator[Text]:
    """News without end."""
    stream = NewsStream(seed)
    while True:
        for row in stream.articles(50, period=0.3, topics=EARLY):
            yield Text(row.text, row.true_topic, row.sentiment)


def of_file(file: Path, seed: int) -> Iterator[Text]:
    """The rows of a file in an order drawn by the seed."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    random.Random(seed).shuffle(rows)
    return (Text(str(row["text"]), str(row["label"])) for row in rows)


class Loop:
    """Makes releases in a world."""

    def __init__(self, world: World, texts: Iterator[Text], seed: int) -> None:
        self.world, self.texts, self.draw = world, texts, random.Random(seed)

    def add(self, count: int) -> None:
        """New rows for training."""
        rows = list(itertools.islice(self.texts, count))
        self.world.ports.buffer.add_many([self.example(NEWS, row.text, row.label) for row in rows])
        self.world.ports.buffer.add_many([self.example(MOOD, row.text, row.mood) for row in rows if row.mood])

    def example(self, task: str, text: str, label: str, priority: int = 0) -> Example:
        """One row; ids come from the seed."""
        return Example(
            agent="scout", task=task, input_text=text, expected_output=label, uncertainty=0.5,
            priority=Priority(priority), source=Source.CORRECTION if priority else Source.EXAMPLE,
            importance=1.0 if priority else 0.5, example_id=UUID(int=self.draw.getrandbits(128)),
        )  # fmt: skip

    def correct(self) -> None:
        """A correction of what the champion answers wrong."""
        ports = self.world.ports
        champion = ports.ledger.champion("scout")
        assert champion is not None
        model = rollout.predictors(ports, ports.fleet().agent("scout"), champion)[NEWS]
        while True:
            rows = list(itertools.islice(self.texts, 16))
            for row, answer in zip(rows, model.predict([row.text for row in rows]), strict=True):
                if answer.output != row.label:
                    ports.buffer.add(self.example(NEWS, row.text, row.label, 2))
                    return

    def release(self, reason: Reason, mode: Mode = Mode.AUTO) -> str | None:
        """Train, and promote what the gates let through; None when they hold it."""
        ref = self.world.claim(reason=reason, mode=mode)
        if ref is None:
            return None
        verdict = train.fast_lane(self.world.ports, ref) if ref.urgent else self.world.learn(ref)
        settled = self.world.release(ref, verdict, approve="bench" if verdict["action"] == "approve" else None)
        if settled["version"] is None:
            print(f"held: {verdict['summary']}", file=sys.stderr)
            return None
        self.world.promote()
        return str(settled["version"])


def again(database: str, home: str, versions: list[str]) -> list[Reproduction]:
    """In another process: nothing is warm there but the disk."""
    logging.disable(logging.WARNING)
    folder = Path(home)
    ports = ports_from(
        Settings(
            home=folder, fleet_folder=folder / "fleet", database_url=database,
            verify_key_file=folder / "keys" / "verify.pem",
        )
    )  # fmt: skip
    from dataclasses import replace

    from perennial.registry.folder_store import FolderStore

    own = replace(ports, models=FolderStore(folder / "models"), fleet=partial(loader.load, folder / "fleet"))
    return [reproduce(own, "scout", version) for version in versions]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    servers = postgres_fixture.postgres_server.__wrapped__()  # type: ignore[attr-defined]
    databases = postgres_fixture.database.__wrapped__(next(servers))  # type: ignore[attr-defined]
    database = next(databases)
    try:
        with tempfile.TemporaryDirectory(prefix="perennial-bench-") as home:
            run(arguments, database, Path(home))
    finally:
        next(databases, None)
        next(servers, None)


def run(arguments: argparse.Namespace, database: postgres_fixture.Database, home: Path) -> None:
    """Release, reproduce, say."""
    texts = of_file(arguments.data, arguments.seed) if arguments.data else generated(arguments.seed)
    loop = Loop(make_world(database, home), texts, arguments.seed)
    made: dict[str, str] = {}
    began = time.monotonic()
    for turn in range(4 * arguments.versions):
        if len(made) >= arguments.versions:
            break
        batches = sum(kind == "batch" for kind in made.values())
        if not made:
            kind = "first"
            loop.add(arguments.rows)
            version = loop.release(Reason.REQUEST)
        elif turn % 8 == 7 and batches < arguments.batches:
            kind = "batch"
            loop.add(40)
            version = loop.release(Reason.REQUEST, Mode.BATCH)
        elif turn % 4 == 3:
            kind = "new rows"
            loop.add(30)
            version = loop.release(Reason.REQUEST)
        else:
            kind = "correction"
            loop.correct()
            version = loop.release(Reason.CORRECTION)
        if version is not None:
            made[version] = kind
            print(f"{version} {kind}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(again, (database.app, str(home), list(made)))
    rows = []
    for kind in dict.fromkeys(made.values()):
        mine = [one for one in found if made[one.version] == kind]
        equal = sum(one.exit_code == 0 for one in mine)
        rows.append((kind, len(mine), equal, spread([one.seconds for one in mine], 1)))
    rows.append(
        ("all", len(found), sum(one.exit_code == 0 for one in found), spread([one.seconds for one in found], 1))
    )
    table("Versions made again in another process", ("kind", "versions", "equal digests", "seconds each"), rows)
    for one in found:
        if one.exit_code:
            print(f"{one.version}: {one.outcome.value}: {'; '.join(one.reasons)}")
    sys.exit(0 if len(found) >= arguments.versions and all(one.exit_code == 0 for one in found) else 1)


if __name__ == "__main__":
    main()
