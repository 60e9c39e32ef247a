"""The news that the project writes itself: the same everywhere, varied, drifting, with what is planted told."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perennial.demo import stream as module
from perennial.demo.stream import LATE_TOPIC, SENTIMENTS, TOPICS, Article, NewsStream
from perennial.guard.redactor import Redactor

EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)


def _digest(articles: list[Article]) -> str:
    return hashlib.sha256("\n".join(map(repr, articles)).encode()).hexdigest()


def test_all_processes_with_one_seed_see_the_same_articles() -> None:
    code = (
        "import hashlib; from perennial.demo.stream import NewsStream; s = NewsStream(3); s.articles(5, period=0.1); "
        "a = s.articles(200, period=0.7, mistake_rate=0.1, pii_rate=0.3); "
        "print(hashlib.sha256('\\n'.join(map(repr, a)).encode()).hexdigest())"
    )
    seen = set()
    for salt in ("0", "1"):  # the salt of hash(), which must not matter
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": str(Path(module.__file__).parents[2])}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        seen.add(done.stdout.strip())
    stream = NewsStream(3)
    stream.articles(5, period=0.1)
    assert seen == {_digest(stream.articles(200, period=0.7, mistake_rate=0.1, pii_rate=0.3))}
    assert seen != {_digest(NewsStream(4).articles(200, period=0.7, mistake_rate=0.1, pii_rate=0.3))}


def test_texts_are_varied_and_as_long_as_short_news() -> None:
    articles = NewsStream(5).articles(10_000, period=0.4, pii_rate=0.0)
    lengths = sorted(len(article.text.split()) for article in articles)
    assert len({article.text for article in articles}) == 10_000
    assert lengths[100] >= 15
    assert lengths[5_000] <= 50
    assert not [article.text for article in articles if "{" in article.text or "}" in article.text]


def test_topics_moods_and_qualities_are_even() -> None:
    articles = NewsStream(6).articles(3_000, period=0.0)
    assert set(Counter(article.topic for article in articles)) == set(EARLY)
    assert min(Counter(article.topic for article in articles).values()) > 500
    assert min(Counter(article.sentiment for article in articles).values()) > 900
    assert {article.sentiment for article in articles} == set(SENTIMENTS)
    qualities = [article.quality for article in articles]
    assert 0.0 <= min(qualities) < 0.2
    assert 0.9 < max(qualities) <= 1.0


def test_the_late_topic_appears_late_or_on_demand() -> None:
    stream = NewsStream(7)
    assert LATE_TOPIC not in {article.topic for article in stream.articles(500, period=0.49)}
    assert LATE_TOPIC in {article.topic for article in stream.articles(500, period=0.5)}
    assert {article.topic for article in stream.articles(50, period=0.0, topics=(LATE_TOPIC,))} == {LATE_TOPIC}


def test_wording_drifts_from_the_old_words_to_the_new() -> None:
    words = module._words()["topics"]
    late = [phrase for topic in EARLY for phrase in words[topic]["late"]["things"]]

    def share(period: float) -> float:
        articles = NewsStream(8).articles(400, period=period, topics=EARLY, pii_rate=0.0)
        told = [article.text.lower() for article in articles if article.quality > 0.9]
        return sum(any(phrase in text for phrase in late) for text in told) / len(told)

    assert share(0.0) == 0.0
    assert 0.2 < share(0.5) < share(1.0)
    assert share(1.0) > 0.9


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_label_mistakes_come_at_their_rate_and_the_truth_is_kept(rate: float) -> None:
    articles = NewsStream(9).articles(1_000, period=0.3, mistake_rate=rate)
    wrong = sum(article.topic != article.true_topic for article in articles)
    assert wrong == pytest.approx(1_000 * rate, abs=60 * (0 < rate < 1))
    alone = NewsStream(9).articles(20, period=0.3, topics=("sports",), mistake_rate=1.0)
    assert "sports" not in {article.topic for article in alone}


def test_times_follow_the_period() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    stream = NewsStream(10, until=until)
    first, last = (stream.articles(50, period=period) for period in (0.0, 1.0))
    assert max(article.timestamp for article in last) <= until
    assert min(article.timestamp for article in last) >= until - timedelta(days=1)
    assert until - timedelta(days=301) <= min(article.timestamp for article in first)
    assert max(article.timestamp for article in first) <= until - timedelta(days=300)


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(ValueError, match="period"):
        NewsStream(1).articles(1, period=1.5)
    with pytest.raises(ValueError, match="gardening"):
        NewsStream(1).articles(1, period=0.5, topics=("gardening",))


@pytest.mark.req("K67", "K68")
def test_planted_personal_data_is_told_and_the_guard_finds_all_of_it() -> None:
    redactor = Redactor(names=True, key=b"tests")
    articles = NewsStream(11).articles(1_500, period=0.5, pii_rate=0.5)
    planted = [article for article in articles if article.pii]
    assert len(planted) == pytest.approx(750, abs=80)
    kinds = Counter[str]()
    for article in planted:
        assert all(value in article.text for value in article.pii)
        result = redactor.redact(article.text)
        assert not [value for value in article.pii if value in result.text]
        assert redactor.scan(result.text) == {}
        kinds.update(result.counts)
    assert set(kinds) == {"EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "US_SSN", "IP_ADDRESS", "IBAN_CODE", "PERSON"}


@pytest.mark.req("K68")
def test_the_guard_leaves_texts_without_personal_data_alone() -> None:
    redactor = Redactor(names=True, key=b"tests")
    texts = [article.text for article in NewsStream(12).articles(1_500, period=0.5, pii_rate=0.0)]
    assert [text for text in texts if redactor.redact(text).text != text] == []


def test_people_and_numbers_in_texts_are_invented() -> None:
    for article in NewsStream(13).articles(2_000, period=0.5, pii_rate=1.0):
        (value,) = article.pii
        if "@" in value:
            assert re.search(r"\.example(\.(com|org|net))?$", value) or re.search(
                r"@\w+\.example\.(com|org|net)$", value
            )
        elif re.fullmatch(r"[\d.]+", value):
            assert value.startswith(("192.0.2.", "198.51.100.", "203.0.113."))
        elif "555" in value and len(value) < 16 and "-" in value[-6:]:
            assert "01" in value[-5:]
