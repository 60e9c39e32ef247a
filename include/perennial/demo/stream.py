"""A stream of news that the project writes itself.

Several topics, one that appears late, wording that drifts, label mistakes, and personal data in texts.

Everything is drawn from ``data/news.json`` by a seeded generator, so two processes with one seed see the same articles.
The names, addresses and numbers in texts are invented: reserved domains, test card numbers, fictional telephone ranges.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

LATE_TOPIC = "climate"
TOPICS = ("world", "business", "sports", "science", "culture", LATE_TOPIC)
_EPOCH = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)
_SPAN = timedelta(days=300)  # from period 0 to period 1
_MIXED = 0.22  # share of articles whose second sentence belongs to another topic


@dataclass(frozen=True, kw_only=True, slots=True)
class Article:
    """One article. ``topic`` is the label as delivered, ``true_topic`` what it is about; ``quality`` lies in [0, 1]."""

    text: str
    topic: str
    true_topic: str
    quality: float
    sentiment: str
    timestamp: datetime
    pii: tuple[str, ...]  # kinds of personal data planted in the text


@cache
def _words() -> dict[str, Any]:
    text = resources.files("perennial.demo").joinpath("data/news.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


class NewsStream:
    """Draws articles; each call goes on where the last one stopped.

    >>> first, again = NewsStream(7).articles(3, period=0.0), NewsStream(7).articles(3, period=0.0)
    >>> first == again, len({article.text for article in NewsStream(7).articles(500, period=0.5)}) > 490
    (True, True)
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"news {seed}")

    def articles(
        self, n: int, *, period: float, topics: tuple[str, ...] | None = None, mistake_rate: float = 0.0,
        pii_rate: float = 0.05,
    ) -> list[Article]:  # fmt: skip
        """``n`` articles of one moment: ``period`` runs from 0 (old wording) to 1 (new wording)."""
        chosen = topics or tuple(topic for topic in TOPICS if topic != LATE_TOPIC or period >= 0.5)
        return [self._article(period, chosen, mistake_rate, pii_rate) for _ in range(n)]

    def _article(self, period: float, topics: tuple[str, ...], mistake_rate: float, pii_rate: float) -> Article:
        draw = self._random
        topic = draw.choice(topics)
        sentences = [self._sentence(topic, period)]
        if draw.random() < _MIXED:
            other = draw.choice([name for name in TOPICS[:-1] if name != topic])
            sentences.append(self._sentence(other, period))
        elif draw.random() < 0.5:
            sentences.append(self._sentence(topic, period))
        sentiment = draw.choice(("positive", "negative", "neutral"))
        sentences.append(draw.choice(_words()["sentiment"][sentiment]))
        sentences.append(draw.choice(_words()["filler"]))
        quality, sentences = self._quality(sentences)
        pii: tuple[str, ...] = ()
        if draw.random() < pii_rate:
            kind, sentence = self._personal()
            pii = (kind,)
            sentences.append(sentence)
        label = topic
        if draw.random() < mistake_rate:
            label = draw.choice([name for name in topics if name != topic] or [topic])
        moment = _EPOCH + _SPAN * period + timedelta(seconds=draw.randrange(86_400))
        return Article(
            text=" ".join(sentences), topic=label, true_topic=topic, quality=quality, sentiment=sentiment,
            timestamp=moment, pii=pii,
        )  # fmt: skip

    def _sentence(self, topic: str, period: float) -> str:
        who, did, where = (self._part(topic, name, period) for name in ("who", "did", "where"))
        return f"{who[0].upper()}{who[1:]} {did} {where}."

    def _part(self, topic: str, name: str, period: float) -> str:
        words = _words()["topics"][topic]
        late = words[f"{name}_late"]
        return str(self._random.choice(late if late and self._random.random() < period else words[name]))

    def _quality(self, sentences: list[str]) -> tuple[float, list[str]]:
        """Well-made articles stay as they are; poor ones lose care, and the score says how much."""
        faults = self._random.choice((0, 0, 0, 1, 2, 3))
        for _ in range(faults):
            place = self._random.randrange(len(sentences) + 1)
            sentences.insert(place, str(self._random.choice(_words()["poor"])))
        if faults >= 2:
            sentences = [sentence.lower().replace(",", "") for sentence in sentences]
        noise = self._random.uniform(-0.05, 0.05)
        return round(min(1.0, max(0.0, 0.92 - 0.27 * faults + noise)), 3), sentences

    def _personal(self) -> tuple[str, str]:
        draw, words = self._random, _words()
        first, last = draw.choice(words["first"]), draw.choice(words["last"])
        kinds = {
            "email": f"Write to {first.lower()}.{last.lower()}@news.example for the full text.",
            "phone": f"Call the desk at +1 212 555 01{draw.randrange(100):02d}.",
            "card": "Subscriptions were charged to card 4111 1111 1111 1111.",
            "person": f"Contact {first} {last} for interviews.",
        }
        kind = draw.choice(sorted(kinds))
        return kind, kinds[kind]
