"""What the story is told with: the generated stream of news, or any JSON Lines file with ``text`` and ``label``."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.demo.plane import Truth
from perennial.errors import InvalidExample

START = 840  # rows of the start set; a quarter becomes holdout
MOODS = 540  # of them also labelled with their sentiment
DRIFT = 900  # rows that arrive later
LATER = 90  # rows of the topic that appears later
FLIPPED = 200  # rows of the poisoned batch
HONEST = 60  # rows of other topics among the late topic and among the poison, as real streams are mixed
LABELS_FROM_A_FILE = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Rows by the chapter that uses them."""

    task: str
    name: str
    start: tuple[Truth, ...]
    others: tuple[tuple[str, tuple[Truth, ...]], ...] = ()  # start sets of the agent's other tasks
    drift: tuple[Truth, ...]
    later: tuple[Truth, ...]
    later_label: str
    flipped: tuple[Truth, ...]  # labels already wrong
    flipped_from: str
    flipped_to: str
    honest: tuple[Truth, ...]  # arrive with the flipped ones


def generated(seed: int, task: str) -> Material:
    """The project's own stream: five topics, one of them late, drifting wording, label mistakes and personal data in texts."""
    from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream

    stream = NewsStream(seed)
    early = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
    start = stream.articles(START, period=0.0, topics=early, mistake_rate=0.02, pii_rate=0.05)
    drift = stream.articles(DRIFT, period=0.6, topics=early, pii_rate=0.05)
    later = stream.articles(LATER, period=0.8, topics=(LATE_TOPIC,))
    poisoned = stream.articles(FLIPPED, period=0.7, topics=(early[0],))
    others = stream.articles(2 * HONEST, period=0.8, topics=early)
    among = [Truth(text=article.text, label=article.true_topic) for article in others]
    return Material(
        task=task, name="generated news",
        start=tuple(Truth(text=article.text, label=article.topic) for article in start),
        others=(
            ("quality_assessment", tuple(Truth(text=article.text, label=article.quality) for article in start)),
            ("sentiment", tuple(Truth(text=article.text, label=article.sentiment) for article in start[:MOODS])),
        ),
        drift=tuple(Truth(text=article.text, label=article.true_topic) for article in drift),
        later=mixed([Truth(text=article.text, label=article.true_topic) for article in later], among[:HONEST]),
        later_label=LATE_TOPIC, honest=tuple(among[HONEST:]),
        flipped=tuple(Truth(text=article.text, label=early[1]) for article in poisoned),
        flipped_from=early[0], flipped_to=early[1],
    )  # fmt: skip


def from_file(path: Path, seed: int, task: str) -> Material:
    """A file's rows in the order of their timestamps (shuffled when it has none), its most frequent labels only.

    The least frequent of these labels is kept back as the topic that appears later.
    """
    rows = _read(path)
    counts = Counter(str(row["label"]) for row in rows)
    labels = [label for label, _ in counts.most_common(LABELS_FROM_A_FILE)]
    if len(labels) < 3:
        raise InvalidExample(
            "label", f"takes {len(labels)} values in {path.name}", "the story needs a file with three labels or more"
        )
    late = labels[-1]
    early = [label for label in labels if label != late]
    rows = [row for row in rows if str(row["label"]) in labels]
    if all("timestamp" in row for row in rows):
        rows.sort(key=lambda row: str(row["timestamp"]))
    else:
        random.Random(seed).shuffle(rows)
    known = [Truth(text=row["text"], label=str(row["label"])) for row in rows if str(row["label"]) != late]
    later = [Truth(text=row["text"], label=late) for row in rows if str(row["label"]) == late][:LATER]
    remaining = known[START + DRIFT :]
    rest = remaining[: 2 * HONEST]  # as the stream goes on, with every label
    victims = [truth for truth in remaining[2 * HONEST :] if truth.label == early[0]][:FLIPPED]
    if len(victims) < FLIPPED // 2 or len(rest) < 2 * HONEST or len(later) < LATER // 2:
        raise InvalidExample(
            "rows", f"of {path.name} are too few for every chapter", f"send {START + DRIFT + 400} rows or more"
        )
    return Material(
        task=task, name=path.name, start=tuple(known[:START]), drift=tuple(known[START : START + DRIFT]),
        later=mixed(later, rest[:HONEST]),
        later_label=late, honest=tuple(rest[HONEST : 2 * HONEST]),
        flipped=tuple(Truth(text=truth.text, label=early[1]) for truth in victims),
        flipped_from=early[0], flipped_to=early[1],
    )  # fmt: skip


def mixed(main: Sequence[Truth], others: Sequence[Truth]) -> tuple[Truth, ...]:
    """Spread ``others`` evenly through ``main``.

    >>> [truth.label for truth in mixed([Truth(text="", label="a")] * 4, [Truth(text="", label="b")] * 2)]
    ['a', 'a', 'b', 'a', 'a', 'b']
    """
    every = max(len(main) // max(len(others), 1), 1)
    out: list[Truth] = []
    rest = list(others)
    for number, truth in enumerate(main, 1):
        out.append(truth)
        if number % every == 0 and rest:
            out.append(rest.pop(0))
    return (*out, *rest)


def _read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidExample(f"line {number}", "is not JSON", "send one object per line") from error
            if not isinstance(row.get("text"), str) or row.get("label") is None:
                raise InvalidExample(f"line {number}", "lacks text or label", "send objects with both")
            rows.append(row)
    return rows


def as_examples(task: str, truths: Sequence[Truth], **fields: Any) -> list[dict[str, Any]]:
    """Rows for ``POST /v1/examples``."""
    return [
        {
            "task_type": task,
            "input_text": truth.text,
            "expected_output": truth.label,
            "uncertainty_score": 0.5,
            **fields,
        }
        for truth in truths
    ]
