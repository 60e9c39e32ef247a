"""What poisoned batches do to a champion, with the defences and without, through the real select, train, evaluate and gate.

    PYTHONPATH=include:. python benchmarks/bench_poisoning.py [--data FILE.jsonl] [--seed 1] [--json OUT]

FILE holds ``text`` and ``label``; without it the project's own generated news are used. The champion learns 1,000 rows. Each attack sends a
batch of about 500 rows, some with the labels of one class flipped to another; the changes are measured on rows that the deployment
never saw. Starts a PostgreSQL of its own. OMP_NUM_THREADS=1 is faster than more where other programs run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))

from benchmarks.bench_buffer import database, server
from benchmarks.machine import table

from tests.acceptance.poisoning import Attack, Row, defend, found_champion, harm

CHAMPION, BATCH, PEOPLE = 1000, 500, 60


def rows_of(path: Path | None, seed: int) -> list[Row]:
    """The rows of a file with at least three labels, shuffled; or generated ones."""
    if path is None:
        from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream

        early = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
        articles = NewsStream(seed).articles(3400, period=0.3, topics=early)
        return [Row(text=article.text, label=article.true_topic) for article in articles]
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    rows = [Row(text=row["text"], label=str(row["label"])) for row in found]
    random.Random(seed).shuffle(rows)
    return rows


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clean", type=int, default=800, help="rows that the changes are measured on")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = rows_of(arguments.data, arguments.seed)
    victim, claims = [label for label, _ in Counter(row.label for row in rows).most_common(2)]
    start, rest = rows[:CHAMPION], rows[CHAMPION:]
    honest, later = rest[:BATCH], rest[BATCH:]
    # the attacker's texts are none of the honest batch's, which keeps its mix of labels
    victims = [row for row in later if row.label == victim][: BATCH * 2 // 5]
    taken = {row.text for row in victims}
    pool = [row for row in later if row.text not in taken]
    # as many clean rows of each label: the attack took some of the victim's
    clean: list[Row] = []
    share = arguments.clean // len({row.label for row in pool})
    for label in sorted({row.label for row in pool}):
        clean += [row for row in pool if row.label == label][:share]
    attacks = [
        Attack(share=part, accounts=accounts, victim=victim, claims=claims, known=known)
        for part, accounts, known in (
            (0.10, 1, False), (0.10, 20, False), (0.40, 20, False), (0.0, 1, False), (0.10, 20, True), (0.40, 1, False),
        )
    ]  # fmt: skip
    found: list[dict[str, Any]] = []
    with server() as host, database(host) as urls, tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        world = found_champion(urls, Path(folder), start, people=PEOPLE)
        print(f"champion after {time.monotonic() - began:.0f} s", file=sys.stderr)
        for attack in attacks:
            for defended in (False, True):
                defend(world, defended=defended)
                part = round(BATCH * (1 - attack.share))
                seen = harm(urls, world, honest[:part], victims, clean, attack, seed=arguments.seed, people=PEOPLE)
                found.append({"attack": str(attack), "defended": defended, **asdict(seen)})
                print(f"{time.monotonic() - began:.0f} s: {found[-1]}", file=sys.stderr)
    table(
        f"Flipped {victim} -> {claims}: changes on {len(clean)} clean rows, in points",
        ("attack", "defences", "flipped rows claimed", "trained", "honest rows held back", "overall", victim, "gate"),
        [
            (
                one["attack"], "on" if one["defended"] else "off", one["flipped_claimed"], one["flipped_trained"],
                one["honest_held"], f"{one['overall']:+.1f}", f"{one['slice']:+.1f}", one["action"],
            )
            for one in found
        ],
    )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
