"""A stream of news that the project writes itself.

Several topics, one that appears late, wording that drifts, moods, faults, label mistakes, and personal data in texts.

A seeded generator draws everything from ``data/*.json``, so two processes with one seed see the same articles. The lists
are long beside a training set: what an article is about shows in its meaning, seldom in a word that was seen before.
Names, addresses and numbers in texts are invented: reserved domains and networks, test numbers, fictional telephones.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

LATE_TOPIC = "climate"
TOPICS = ("world", "business", "sports", "science", "culture", LATE_TOPIC)
SENTIMENTS = ("positive", "negative", "neutral")
_SPAN = timedelta(days=300)  # from period 0 to period 1
_UNTIL = datetime(2026, 11, 2, 6, 0, tzinfo=UTC)  # fixed, so that articles do not depend on the day of the run
_MIXED = 0.22  # share of articles whose second sentence belongs to another topic
_GENERAL = 0.2  # share of places where a word of no topic stands ("officials", "over the weekend")
_WHOLE_MOOD = 0.65  # share of mood sentences written as a whole; the others put a word of the mood into a frame
_FLAWLESS = 0.4  # share of articles without a fault
_MOST_FAULTS = 6
_FAULT_COST = 0.14  # of quality, for each fault
_AN = re.compile(r"(?!eu|uni|us)[aeiou]|hour|hon")  # adjectives that take "an"


@dataclass(frozen=True, kw_only=True, slots=True)
class Article:
    """One article. ``topic`` is the label as delivered, ``true_topic`` what it is about; ``quality`` lies in [0, 1]."""

    text: str
    topic: str
    true_topic: str
    quality: float
    sentiment: str
    timestamp: datetime
    pii: tuple[str, ...]  # the personal data planted in the text, as it stands there


@cache
def _words() -> dict[str, Any]:
    folder = resources.files("perennial.demo").joinpath("data")
    parts = (json.loads(folder.joinpath(f"{name}.json").read_text("utf-8")) for name in ("news", "moods", "faults"))
    return {key: value for part in parts for key, value in part.items()}


class NewsStream:
    """Draws articles; each call goes on where the last one stopped. ``until`` is the moment at which period 1 ends.

    >>> first, again = NewsStream(7).articles(3, period=0.0), NewsStream(7).articles(3, period=0.0)
    >>> first == again, len({article.text for article in NewsStream(7).articles(500, period=0.5)})
    (True, 500)
    """

    def __init__(self, seed: int, *, until: datetime | None = None) -> None:
        self._random = random.Random(f"news {seed}")
        self._until = until or _UNTIL

    def articles(
        self, n: int, *, period: float, topics: tuple[str, ...] | None = None, mistake_rate: float = 0.0,
        pii_rate: float = 0.05,
    ) -> list[Article]:  # fmt: skip
        """``n`` articles of one moment: ``period`` runs from 0 (old wording) to 1 (new wording).

        ValueError for a period outside [0, 1] and for a topic that is not in ``TOPICS``.
        """
        if not 0.0 <= period <= 1.0:
            raise ValueError(f"period is {period}, and must lie between 0 and 1")
        chosen = topics or tuple(topic for topic in TOPICS if topic != LATE_TOPIC or period >= 0.5)
        unknown = [topic for topic in chosen if topic not in TOPICS]
        if unknown:
            raise ValueError(f"there is no topic {unknown[0]!r}; take some of {', '.join(TOPICS)}")
        return [self._article(period, chosen, mistake_rate, pii_rate) for _ in range(n)]

    def _article(self, period: float, topics: tuple[str, ...], mistake_rate: float, pii_rate: float) -> Article:
        draw = self._random
        topic, sentiment = draw.choice(topics), draw.choice(SENTIMENTS)
        sentences = [self._event(topic, sentiment, period)]
        if draw.random() < _MIXED:
            other = draw.choice([name for name in TOPICS if name not in (topic, LATE_TOPIC)])
            sentences.append(self._aside(other, sentiment, period))
        elif draw.random() < 0.5:
            sentences.append(self._follow_up(topic, sentiment, period))
        sentences.append(self._mood(sentiment))
        if draw.random() < 0.3:
            sentences.append(self._pick(_words()["generic"]["filler"]))
        faults = 0 if draw.random() < _FLAWLESS else draw.randint(1, _MOST_FAULTS)
        text = _Spoiler(draw).spoil(" ".join(sentences), faults)
        quality = 0.95 - _FAULT_COST * faults + draw.uniform(-0.04, 0.04)
        pii: tuple[str, ...] = ()
        if draw.random() < pii_rate:
            value, sentence = self._personal()
            pii, text = (value,), f"{text} {sentence}"
        label = topic
        if draw.random() < mistake_rate:
            others = [name for name in topics if name != topic] or [name for name in TOPICS if name != topic]
            label = draw.choice(others)
        moment = self._until - _SPAN * (1.0 - period) - timedelta(seconds=draw.randrange(86_400))
        return Article(
            text=text, topic=label, true_topic=topic, quality=round(min(1.0, max(0.0, quality)), 3),
            sentiment=sentiment, timestamp=moment, pii=pii,
        )  # fmt: skip

    def _event(self, topic: str, sentiment: str, period: float) -> str:
        """The sentence that says what happened; it always names a thing of the topic."""
        who, where = self._who(topic, period), self._where(topic, period)
        form = self._random.randrange(3)
        if form == 0:
            return _sentence(f"{who} {self._of_mood(sentiment, 'verbs')} {self._thing(topic, period)} {where}")
        result = f"{self._affair(topic, period)} {self._of_mood(sentiment, 'outcomes')}"
        if form == 1:
            return _sentence(f"{where}, {result}, said {who}")
        return _sentence(f"{who} {self._did(topic, sentiment, period)} {where}, and {result}")

    def _follow_up(self, topic: str, sentiment: str, period: float) -> str:
        who = self._who(topic, period)
        if self._random.random() < 0.5:
            return _sentence(f"{who} {self._did(topic, sentiment, period)}")
        return _sentence(f"{who} {self._of_mood(sentiment, 'verbs')} {self._thing(topic, period)}")

    def _aside(self, topic: str, sentiment: str, period: float) -> str:
        """A sentence on something else, shorter than what the article is about."""
        who = self._pick(_words()["generic"]["who"])
        return _sentence(f"elsewhere, {who} {self._of_mood(sentiment, 'verbs')} {self._thing(topic, period)}")

    def _mood(self, sentiment: str) -> str:
        words = _words()["moods"][sentiment]
        if self._random.random() < _WHOLE_MOOD:
            return self._pick(words["sentences"])
        adjective, feelings = self._pick(words["adjectives"]), self._random.sample(words["feelings"], 2)
        frame = self._pick(_words()["frames"])
        if _AN.match(adjective):
            frame = frame.replace("a {adj}", "an {adj}").replace("A {adj}", "An {adj}")
        frame = frame.replace("{adj}", adjective)
        for feeling in feelings:
            frame = frame.replace("{feeling}", feeling, 1)
        return frame

    def _who(self, topic: str, period: float) -> str:
        if self._random.random() < _GENERAL:
            return self._pick(_words()["generic"]["who"])
        return f"the {self._pick(self._age(topic, period)['who'])}"

    def _where(self, topic: str, period: float) -> str:
        if self._random.random() < _GENERAL:
            return self._pick(_words()["generic"]["where"])
        return self._pick(self._age(topic, period)["where"])

    def _did(self, topic: str, sentiment: str, period: float) -> str:
        return self._pick(self._age(topic, period)["did"][sentiment])

    def _thing(self, topic: str, period: float) -> str:
        return f"{self._pick(_words()['generic']['determiners'])} {self._pick(self._age(topic, period)['things'])}"

    def _affair(self, topic: str, period: float) -> str:
        """The thing behind a word in the singular, which any predicate fits."""
        return f"{self._pick(_words()['generic']['about'])} {self._thing(topic, period)}"

    def _age(self, topic: str, period: float) -> dict[str, Any]:
        """The old or the new words of a topic; the late topic is new as a whole and has no newer words."""
        ages = _words()["topics"][topic]
        late = self._random.random() < period
        return dict(ages["late"] if late and "late" in ages else ages["early"])

    def _of_mood(self, sentiment: str, part: str) -> str:
        return self._pick(_words()["moods"][sentiment][part])

    def _pick(self, words: Sequence[str]) -> str:
        return self._random.choice(words)

    def _personal(self) -> tuple[str, str]:
        """A piece of personal data, and a sentence that holds it."""
        draw, words = self._random, _words()
        first, last = draw.choice(words["first"]), draw.choice(words["last"])
        domain = draw.choice(("news.example", "mail.example.com", "post.example.org"))  # RFC 2606
        email = f"{first.lower()}.{last.lower()}@{domain}"
        phone = f"212-555-01{draw.randrange(100):02d}"  # the range set aside for fiction
        card = draw.choice(("4111 1111 1111 1111", "5555 5555 5555 4444", "4012 8888 8888 1881"))  # issuers' tests
        number = f"987-65-{draw.randrange(4320, 4330)}"  # the range set aside for advertisements
        address = f"{draw.choice(('192.0.2', '198.51.100', '203.0.113'))}.{draw.randrange(1, 255)}"  # RFC 5737
        iban = draw.choice(("GB82 WEST 1234 5698 7654 32", "DE89 3704 0044 0532 0130 00"))  # the standard's examples
        person = f"{first} {last}"
        return draw.choice(
            (
                (email, f"Write to {email} for the full text."),
                (phone, f"Call the desk at {phone}."),
                (card, f"Subscriptions were charged to card {card}."),
                (number, f"The leaked form shows the social security number {number}."),
                (address, f"The comment was posted from {address}."),
                (iban, f"Donations went to the account {iban}."),
                (person, f"Contact {person} for interviews."),
            )
        )


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


class _Spoiler:
    """Takes the care out of a text, one fault after another."""

    def __init__(self, draw: random.Random) -> None:
        self._random = draw
        self._kinds: tuple[Callable[[str], str], ...] = (
            self._bait, self._slang, self._vague, self._shout, self._marks, self._typos, self._stutter, self._flat, self._cut,
        )  # fmt: skip

    def spoil(self, text: str, faults: int) -> str:
        """The text with so many faults of different kinds."""
        kinds = self._random.sample(range(len(self._kinds)), faults)
        for kind in sorted(kinds):  # the ending is cut last, or a later phrase would hide it
            text = self._kinds[kind](text)
        return text

    def _bait(self, text: str) -> str:
        return self._between(text, f"{self._phrase('bait')}{self._phrase('marks')}")

    def _slang(self, text: str) -> str:
        return self._between(text, self._phrase("slang"))

    def _vague(self, text: str) -> str:
        return self._between(text, self._phrase("vague"))

    def _shout(self, text: str) -> str:
        words = self._between(text, f"{self._phrase('shout')}{self._phrase('marks')}").split(" ")
        for place in self._small(words, 3):
            words[place] = words[place].upper()
        return " ".join(words)

    def _marks(self, text: str) -> str:
        return "".join(self._phrase("marks") if sign == "." else sign for sign in text)

    def _typos(self, text: str) -> str:
        words = text.split(" ")
        for place in self._small(words, max(3, len(words) // 5)):
            words[place] = self._mistyped(words[place])
        return " ".join(words)

    def _stutter(self, text: str) -> str:
        words = text.split(" ")
        for place in sorted(self._small(words, 4), reverse=True):
            words.insert(place, words[place])
        return " ".join(words)

    def _flat(self, text: str) -> str:
        return text.lower().replace(",", "").replace(".", "")

    def _cut(self, text: str) -> str:
        words = text.split(" ")
        return " ".join(words[: -self._random.randint(2, 5)])

    def _mistyped(self, word: str) -> str:
        place = self._random.randrange(1, len(word) - 1)
        return self._random.choice(
            (
                f"{word[:place]}{word[place + 1 :]}",
                f"{word[:place]}{word[place + 1]}{word[place]}{word[place + 2 :]}",
                f"{word[:place]}{word[place]}{word[place:]}",
            )
        )

    def _small(self, words: Sequence[str], most: int) -> list[int]:
        """Places of some words in small letters: a changed capital could read as somebody's name."""
        places = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha() and word.islower()]
        return self._random.sample(places, min(most, len(places)))

    def _between(self, text: str, phrase: str) -> str:
        """The phrase before, behind or between the sentences."""
        sentences = text.split(". ")
        place = self._random.randrange(len(sentences) + 1)
        if place == len(sentences):
            return f"{text} {phrase}"
        return ". ".join([*sentences[:place], f"{phrase} {sentences[place]}", *sentences[place + 1 :]])

    def _phrase(self, kind: str) -> str:
        return str(self._random.choice(_words()["faults"][kind]))
