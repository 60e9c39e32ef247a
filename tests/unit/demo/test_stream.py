"""The news that the project writes itself: the same everywhere, varied, drifting, with what is planted told."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from perennial.demo import stream as module
from perennial.demo.stream import LATE_TOPIC, SENTIMENTS, TOPICS, Article, NewsStream
from perennial.domain.example import TrainingRow
from perennial.domain.model import TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.guard.redactor import Redactor
from perennial.trainers import LocalBaseStore, MemoryEmbeddings
from perennial.trainers.ewc_text import EwcText
from perennial.trainers.tfidf_baseline import tfidf_baseline

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


def test_late_words_stand_in_no_early_list() -> None:
    def phrases(part: object) -> Iterator[str]:
        if isinstance(part, str):
            yield part.lower()
        else:
            for inner in part.values() if isinstance(part, dict) else part:  # type: ignore[attr-defined]
                yield from phrases(inner)

    words = module._words()
    early = [phrase for topic in TOPICS for phrase in phrases(words["topics"][topic]["early"])]
    early += [phrase for part in ("generic", "moods", "frames", "faults") for phrase in phrases(words[part])]
    late = [thing for topic in EARLY for thing in words["topics"][topic]["late"]["things"]]
    assert [thing for thing in late if any(thing in phrase for phrase in early)] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_each_topic_has_a_large_vocabulary(topic: str) -> None:
    words = module._words()["topics"][topic]["early"]
    assert len(set(words["who"])) >= 60
    assert len(set(words["things"])) >= 60
    assert {mood: len(set(words["did"][mood])) >= 15 for mood in SENTIMENTS} == dict.fromkeys(SENTIMENTS, True)
    assert len(set(words["where"])) >= 30


def test_texts_that_come_later_hold_words_that_a_small_set_has_not() -> None:
    texts = [
        article.text for article in NewsStream(14).articles(840, period=0.0, topics=EARLY) if article.quality > 0.9
    ]
    words = [set(re.findall(r"[a-z]{4,}", text.lower())) for text in texts]
    seen = set().union(*words[:60])
    unseen = sorted(len(held - seen) / len(held) for held in words[60:])
    assert unseen[len(unseen) // 2] > 0.25


def test_no_two_moods_share_a_phrase() -> None:
    moods = module._words()["moods"]
    for part in ("verbs", "outcomes", "adjectives", "feelings", "sentences"):
        lists = [moods[mood][part] for mood in SENTIMENTS]
        assert min(map(len, lists)) >= 60, part
        assert len(set().union(*lists)) == sum(map(len, lists)), part


def test_faults_take_many_forms() -> None:
    text = "The river keepers planted trees along the bank. The work went on until noon. More is expected tomorrow."
    for faults in range(1, module._MOST_FAULTS + 1):
        spoiled = {module._Spoiler(random.Random(seed)).spoil(text, faults) for seed in range(50)}
        assert text not in spoiled
        assert len(spoiled) > 30
    assert module._Spoiler(random.Random(1)).spoil(text, 0) == text


def test_about_every_fifth_article_has_a_sentence_on_another_topic() -> None:
    articles = NewsStream(15).articles(2_000, period=0.0)
    assert sum("elsewhere, " in article.text.lower() for article in articles if article.quality > 0.9) == pytest.approx(
        0.22 * sum(article.quality > 0.9 for article in articles), abs=40
    )


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
    stream = NewsStream(12)
    texts = [
        article.text for period in (0.0, 0.5, 1.0) for article in stream.articles(1_500, period=period, pii_rate=0.0)
    ]
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


def _rows(articles: list[Article]) -> tuple[TrainingRow, ...]:
    return tuple(
        TrainingRow(example_id=UUID(int=number), task="topic", text=article.text, label=article.topic)
        for number, article in enumerate(articles)
    )


def test_meaning_tells_the_topic_better_than_words_do(tmp_path: Path) -> None:
    """A first version is to pass the gate that holds whatever counting words does as well."""
    rows = _rows(NewsStream(16).articles(170, period=0.1, topics=EARLY))
    batch = TaskBatch(
        agent="scout", task="topic", kind=TaskKind.CLASSIFICATION, labels=EARLY, new=rows[:90], replay=(),
        mode=Mode.ONLINE,
    )  # fmt: skip
    bench = Workbench(bases=LocalBaseStore(folder=tmp_path / "bases"), embeddings=MemoryEmbeddings())
    (tmp_path / "out").mkdir()
    trainer = EwcText()
    artefact = trainer.fit(batch, None, tmp_path / "out", seed=1, bench=bench)
    answers = trainer.load(artefact.path, bench).predict([row.text for row in rows[90:]])
    accuracy = sum(answer.output == row.label for answer, row in zip(answers, rows[90:], strict=True)) / len(answers)
    assert accuracy > tfidf_baseline(rows[:90], rows[90:]) + 0.05
    assert 0.7 < accuracy < 1.0
