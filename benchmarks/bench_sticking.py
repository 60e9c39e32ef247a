"""Corrections one at a time through the real flows: is each learned, and what do all of them together cost?

    PYTHONPATH=include:. python benchmarks/bench_sticking.py [--data FILE.jsonl] [--rows 1000] [--count 50] [--seed 1] [--json OUT]

FILE holds JSON Lines with ``text`` and ``label``; without one, news that the demo generates. A champion is trained from ``--rows`` of
them; then, ``--count`` times, a random text that the present champion answers wrong is corrected with its label at priority 2:
admitted, claimed, trained in the fast lane, judged by every gate, signed, registered and promoted, in one process on a PostgreSQL of
its own (no Airflow, MLflow's twin on a folder). What is measured is never shown to the system: ``--test`` other texts of the file.
Texts are asked as the user sent them; the system trained on their redacted form. A refused correction is tried once more, as in
production.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import spread, table

from perennial.demo.stream import NewsStream
from tests import postgres_fixture
from tests.acceptance.sticking import Step, Sticking, Truth, correct_one_by_one, training_share
from tests.acceptance.world import make_world

HOLDOUT = 0.35  # of the start rows, for the gates
FLEET = f"""
from perennial.fleet import Agent, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="scout", owner="benchmarks", trainer=EwcText(**SETTINGS), max_buffer_size=20000,
    tasks=(Task(name="news_classification"),),
    selection=Selection(batch=20000, holdout_share={HOLDOUT}),
    rollout=Rollout(step_seconds=0.0, min_samples=5),
)
"""


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the trainer")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    truths = read(chosen.data, chosen.seed) if chosen.data else generated(4 * chosen.rows, chosen.seed)
    settings = {name: json.loads(value) for name, value in (item.split("=") for item in chosen.set)}
    test, rest = truths[: chosen.test], truths[chosen.test :]
    start = training_share(rest, HOLDOUT, chosen.rows)
    with deployment(settings) as world:
        found = correct_one_by_one(
            world, start=start, later=rest[len(start) :], test=test, count=chosen.count, say=tell
        )
    show(found, chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")


def tell(step: Step) -> None:
    """One line while it goes on."""
    print("right" if step.right else "WRONG", f"{step.seconds:.1f} s", step.reason, file=sys.stderr, flush=True)


def read(path: Path, seed: int) -> list[Truth]:
    """Texts and labels of a file, shuffled; of texts that repeat, the first."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    truths = list({record["text"]: str(record["label"]) for record in reversed(records)}.items())
    random.Random(seed).shuffle(truths)
    return truths


def generated(count: int, seed: int) -> list[Truth]:
    """News of the demo's generator, old and new wording mixed."""
    rows = [row for period in (0.0, 0.9) for row in NewsStream(seed).articles(count // 2, period=period)]
    random.Random(seed).shuffle(rows)
    return [(row.text, row.true_topic) for row in rows]


@contextmanager
def deployment(settings: dict[str, Any]) -> Iterator[Any]:
    """A world of its own on a PostgreSQL of its own."""
    servers = postgres_fixture.postgres_server.__wrapped__()  # type: ignore[attr-defined]
    try:
        databases = postgres_fixture.database.__wrapped__(next(servers))  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory(prefix="perennial-sticking-") as folder:
            yield make_world(next(databases), Path(folder) / "world", FLEET.replace("SETTINGS", repr(settings)))
    finally:
        next(servers, None)


def show(found: Sticking, chosen: argparse.Namespace) -> None:
    """The tables."""
    count, name = len(found.steps), chosen.data.name if chosen.data else "generated news"
    table(
        f"{count} corrections one at a time, champion from {found.rows} rows of {name}, seed {chosen.seed}",
        ("what", "goal", "figure"),
        [
            ("answered right by the promoted candidate", f"{-(-count * 48 // 50)} of {count}", f"{found.right} of {count}"),
            ("accuracy on texts never shown, before", "", f"{found.before:.1%} of {chosen.test}"),
            ("the same after all corrections", "-0.5 points", f"{(found.after - found.before) * 100:+.1f} points"),
            ("earlier corrections unlearned on the way", "0", found.unlearned),
            ("corrections answered right at the end", "", f"{found.right_at_end} of {count}"),
            ("seconds each, added to promoted", "", spread([step.seconds for step in found.steps])),
        ],
    )  # fmt: skip
    held = [(number + 1, step.reason) for number, step in enumerate(found.steps) if step.reason]
    if held:
        table("refused on the way", ("correction", "why"), held)
    missed = [number + 1 for number, step in enumerate(found.steps) if step.promoted and not step.right]
    if missed:
        print(f"\ntrained and answered wrong in the words of the user: {', '.join(map(str, missed))}")


if __name__ == "__main__":
    main()
