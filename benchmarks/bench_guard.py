"""What the guard costs and finds: documents a second, a megabyte of hostile text, a validated batch, recall by type.

    PYTHONPATH=include:. python benchmarks/bench_guard.py [--documents 1000] [--pii FILE.jsonl] [--clean FILE.jsonl]

``--pii`` takes JSON Lines with ``text`` and ``entities`` ([start, end, type] in code points, end exclusive); ``--clean`` takes JSON
Lines with ``text``, in which every find of a structured type is shown as a possible false alarm. Times are processor seconds: other
work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.machine import spread, table

from perennial.demo.stream import NewsStream
from perennial.domain.example import TrainingRow
from perennial.domain.words import TaskKind
from perennial.guard.redactor import Redactor
from perennial.guard.spans import Kind
from perennial.guard.validation import validate_batch

KEY = b"a key of the benchmark"
ROUNDS = 5
MEGABYTE = 1_000_000
HOSTILE = (
    "1 ",
    "a@a.a",
    "4111 1111 1111 1111 ",
    "1.2.3.4 ",
    "GB82WEST12345698765432 ",
    "http://a:b@c/",
    "Dr. ",
    "call 123456 ",
)
SAME = {"ADDRESS": "STREET_ADDRESS"}


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--pii", type=Path)
    parser.add_argument("--clean", type=Path)
    arguments = parser.parse_args()
    speed(arguments.documents)
    hostile()
    batches()
    if arguments.pii:
        recall(arguments.pii)
    if arguments.clean:
        alarms(arguments.clean)


def speed(count: int) -> None:
    """Redaction against Presidio's own recognisers, on texts without and with personal data."""
    presidio = _presidio()
    everything, structured = Redactor(names=True, key=KEY), Redactor(names=False, key=KEY)
    rows = []
    for name, rate in (("clean", 0.0), ("a quarter with personal data", 0.25)):
        # every text is new: what was read before comes from memory
        rounds = [
            [article.text for article in NewsStream(number).articles(count, period=0.5, pii_rate=rate)]
            for number in range(ROUNDS)
        ]
        ways: dict[str, Callable[[str], Any]] = {
            "Presidio, the same six kinds, no gate": presidio,
            "redact, structured kinds": structured.redact,
            "redact, with names": everything.redact,
            "scan of the redacted text, with names": everything.scan,
        }
        reference = 0.0
        for way, act in ways.items():
            scans = way.startswith("scan")
            rates = []
            for texts in rounds:
                sample = [result.text for result in everything.redact_many(texts)] if scans else texts
                rates.append(count / _seconds(partial(_each, act, sample)))
            reference = reference or sorted(rates)[ROUNDS // 2]
            rows.append((name, way, spread(rates, 0), f"{sorted(rates)[ROUNDS // 2] / reference:.2f}x"))
    table(f"Redaction, {count} news texts", ("texts", "way", "texts/s, median [min..max]", "of Presidio"), rows)


def hostile() -> None:
    """One megabyte of one short piece, again and again."""
    redactor = Redactor(names=True, key=KEY)
    rows = []
    for piece in HOSTILE:
        text = (piece * (MEGABYTE // len(piece) + 1))[:MEGABYTE]
        found = redactor.redact(text)
        rows.append((repr(piece), f"{_seconds(partial(redactor.redact, text)):.2f}", sum(found.counts.values())))
    table("A megabyte of hostile text, redacted", ("piece", "seconds", "finds"), rows)


def batches() -> None:
    """A validated batch in a warm process."""
    draw, now = random.Random(3), datetime.now(UTC)
    rows = []
    for size in (50, 500, 5000):
        batch = [
            TrainingRow(
                example_id=UUID(int=number), task="news", text=f"{article.text} {number}", label=article.topic,
                created_at=now - timedelta(days=draw.randrange(30)),
            )
            for number, article in enumerate(NewsStream(2).articles(size, period=0.2))
        ]  # fmt: skip
        labels = tuple(sorted({row.label for row in batch}))

        def check(batch: list[TrainingRow] = batch, labels: tuple[str, ...] = labels) -> None:
            report = validate_batch(
                batch, task="news", kind=TaskKind.CLASSIFICATION, labels=labels, max_length=20_000, now=now
            )
            assert report.success, report.failed()

        check()
        rows.append((size, spread([1000 * _seconds(check) for _ in range(ROUNDS)], 0)))
    table("Validation, 12 expectations", ("rows", "ms, median [min..max]"), rows)


def recall(path: Path) -> None:
    """By type: gold spans met by a find of that type, and gold spans of which no character is left."""
    redactor = Redactor(names=True, key=KEY)
    kinds = {kind.value for kind in Kind}
    gold, met, gone, finds, alarms_of = Counter[str](), Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for row in _lines(path):
        spans = redactor.find(row["text"])
        entities = [(start, end, SAME.get(kind, kind)) for start, end, kind in row["entities"]]
        for start, end, kind in entities:
            touching = [span for span in spans if span.start < end and span.end > start]
            gold[kind] += 1
            met[kind] += any(span.kind.value == kind for span in touching)
            gone[kind] += set(range(start, end)) <= {
                place for span in touching for place in range(span.start, span.end)
            }
        for span in spans:
            finds[span.kind.value] += 1
            alarms_of[span.kind.value] += not any(start < span.end and end > span.start for start, end, _ in entities)
    table(
        f"Recall on {path.name}",
        ("type", "gold spans", "met by a find of the type", "wholly redacted", "finds", "finds outside any gold span"),
        [
            (
                kind,
                gold[kind],
                f"{met[kind] / gold[kind]:.3f}",
                f"{gone[kind] / gold[kind]:.3f}",
                finds[kind],
                alarms_of[kind],
            )
            for kind in sorted(gold)
            if kind in kinds
        ],
    )


def alarms(path: Path) -> None:
    """Finds in texts that should hold nothing structured."""
    redactor = Redactor(names=True, key=KEY)
    counts, texts = Counter[str](), 0
    for row in _lines(path):
        counts.update(span.kind.value for span in redactor.find(row["text"]))
        texts += 1
    table(f"Finds in {texts} texts of {path.name}", ("type", "finds"), sorted(counts.items()))


def _presidio() -> Callable[[str], list[Any]]:
    """Presidio as it comes, but for its download of public suffixes."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as theirs

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # type: ignore[assignment]
    recognisers = [
        theirs.EmailRecognizer(), theirs.PhoneRecognizer(), theirs.CreditCardRecognizer(), theirs.IbanRecognizer(),
        theirs.IpRecognizer(), theirs.UsSsnRecognizer(),
    ]  # fmt: skip
    return lambda text: [found for each in recognisers for found in each.analyze(text, each.supported_entities, None)]


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _each(act: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    return [act(text) for text in texts]


def _seconds(act: Callable[[], Any]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


if __name__ == "__main__":
    main()
