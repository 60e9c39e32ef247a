"""What the detectors are not sure of: replaced, named for a person, left standing only where a person said so; and the cache's names."""

from __future__ import annotations

import pytest

from perennial.guard.redactor import MOST_DOUBTS, Redactor
from perennial.guard.spans import Kind, Span
from tests.unit.guard.conftest import KEY

pytestmark = pytest.mark.req("K67", "K68")
TEXT = "Grace said that Jane Doe lost the ticket 867-5309."


def test_an_unsure_find_is_replaced_and_named_between_redacted_text(redactor: Redactor) -> None:
    done = redactor.redact(TEXT)
    assert dict(done.unsure) == {"PERSON": 1, "PHONE_NUMBER": 1}
    assert [doubt.word for doubt in done.doubts] == ["Grace", "867-5309"]
    for doubt in done.doubts:
        assert doubt.word not in done.text
        assert "Jane" not in doubt.before + doubt.after
        assert done.text.count(doubt.before[-20:] or done.text[:1])
        assert doubt.word not in repr(done)
    assert redactor.scan(done.text) == {}
    assert redactor.redact(done.text).text == done.text


def test_a_cleared_word_stands_and_the_second_look_lets_it(redactor: Redactor) -> None:
    grace = redactor.redact(TEXT).doubts[0].key
    done = redactor.redact(TEXT, {grace})
    assert done.text.startswith("Grace said that ")
    assert "Jane" not in done.text
    assert done.cleared == (grace,)
    assert [doubt.word for doubt in done.doubts] == ["867-5309"]
    assert redactor.scan(done.text) == {"PERSON": 1}  # without the person's word it is a find
    assert redactor.scan(done.text, done.cleared) == {}
    assert redactor.redact("Nothing here.", {grace}).cleared == ()


def test_what_a_detector_is_sure_of_cannot_be_cleared(redactor: Redactor) -> None:
    text = "Dr. Grace Miller said it. Grace said more."
    done = redactor.redact(text)
    assert done.doubts == ()
    assert "Grace" not in redactor.redact(text, {redactor.word_key(Kind.PERSON, "Grace")}).text


def test_news_and_things_that_speak_are_no_doubt(redactor: Redactor) -> None:
    for text in (
        "China said exports rose.",
        "The Chelsea coach told London so.",
        "in 2004-2005",
    ):
        assert redactor.redact(text).doubts == ()


def test_a_text_asks_about_few_words_and_all_others_stay_replaced() -> None:
    class Everything:
        kind = Kind.PERSON

        def find(self, text: str) -> list[Span]:
            words = [word for word in text.split() if word.startswith("w")]
            return [Span(text.index(word), text.index(word) + len(word), Kind.PERSON, sure=False) for word in words]

    redactor = Redactor(names=True, key=KEY, detectors=[Everything()])
    done = redactor.redact(" ".join(f"w{number:03d}" for number in range(50)))
    assert len(done.doubts) == MOST_DOUBTS
    assert sum(done.unsure.values()) == 50
    assert "w0" not in done.text


def test_the_version_tells_rules_taggers_and_policy() -> None:
    class Tagger:
        kind = Kind.PERSON
        revision = "abc"

        def find(self, text: str) -> list[Span]:
            return []

    assert Redactor(names=True, key=KEY, detectors=[Tagger()], version="7").version == "7-abc"
    assert Redactor(names=False, key=KEY, detectors=[Tagger()], version="7").version == "7-nonames"


def test_names_in_a_cache_need_the_key() -> None:
    one, other = (Redactor(names=True, key=key, detectors=[]) for key in (KEY, b"another"))
    assert one.content_key("a text") == one.content_key("a text") != other.content_key("a text")
    assert len(one.content_key("a text")) == 16
    assert one.word_key(Kind.PERSON, "Grace") == one.word_key(Kind.PERSON, "GRACE") != one.word_key(Kind.PERSON, "Hope")


def test_a_text_that_comes_again_is_not_looked_at_again() -> None:
    looks = []

    class Counting:
        kind = Kind.PERSON

        def find(self, text: str) -> list[Span]:
            looks.append(text)
            return []

    redactor = Redactor(names=True, key=KEY, detectors=[Counting()], recent=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        redactor.redact(text)
    assert looks == ["a", "b", "c", "b"]
