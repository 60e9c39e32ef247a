"""The cheap patterns in front of Presidio lose nothing that Presidio finds by itself."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any

import pytest

from perennial.guard.redactor import Redactor
from tests.unit.guard.conftest import KEY

DOCUMENTS = 2_000
LEAST = 0.3  # Presidio's score; below lie nine bare digits as a social security number, and "::"
PROSE = (
    "the council met on Tuesday and agreed that rates fell by 3.5 percent while 12 of 40 members left early, order no. 2024-117, "
    "section 4.2.1 at 12:30:45, see std::vector and f(x) = 1e-9 [17] (2019-2021) $1,250.00 #42 50/50 ~3 www.news.example/a?b=1"
)
REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")


def _luhn(body: str) -> str:
    return next(f"{body}{last}" for last in range(10) if _valid(f"{body}{last}"))


def _valid(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _iban(draw: random.Random) -> str:
    body = "".join(draw.choices(string.ascii_uppercase, k=4)) + "".join(draw.choices(string.digits, k=14))
    number = int("".join(str(int(character, 36)) for character in body + "GB00"))
    text = f"GB{98 - number % 97:02d}{body}"
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4)) if draw.random() < 0.5 else text


def _phone(draw: random.Random) -> str:
    import phonenumbers

    region = draw.choice(REGIONS)
    example = phonenumbers.example_number_for_type(region, draw.choice((0, 1)))
    assert example is not None
    digits = str(example.national_number)
    number = phonenumbers.PhoneNumber(
        country_code=example.country_code,
        national_number=int(digits[:-4] + "".join(draw.choices(string.digits, k=4))),
    )
    return phonenumbers.format_number(number, draw.choice((0, 1, 2, 3)))


def _address(draw: random.Random) -> str:
    if draw.random() < 0.5:
        return ".".join(str(draw.randrange(256)) for _ in range(4)) + draw.choice(("", "", "/24"))
    groups = [f"{draw.randrange(65536):x}" for _ in range(8)]
    if draw.random() < 0.5:
        start = draw.randrange(1, 6)
        return ":".join(groups[:start]) + "::" + ":".join(groups[start + 2 :])
    return ":".join(groups)


def _email(draw: random.Random) -> str:
    local = (
        "".join(draw.choices(string.ascii_letters + string.digits + "._+-'", k=draw.randrange(1, 20))).strip(".") or "a"
    )
    host = "".join(draw.choices(string.ascii_lowercase + "-", k=draw.randrange(1, 12))).strip("-") or "b"
    return f"{local}@{host}.{draw.choice(('com', 'co.uk', 'de', 'org', 'info'))}"


def _card(draw: random.Random) -> str:
    start, length = draw.choice((("4", 16), ("51", 16), ("34", 15), ("6011", 16), ("3528", 16), ("30", 14)))
    number = _luhn(start + "".join(draw.choices(string.digits, k=length - len(start) - 1)))
    by = draw.choice(("", " ", "-"))
    return by.join((number[:4], number[4:8], number[8:12], number[12:]))


def _ssn(draw: random.Random) -> str:
    by = draw.choice("- .")
    return f"{draw.randrange(1, 900):03d}{by}{draw.randrange(1, 100):02d}{by}{draw.randrange(1, 10000):04d}"


def _noise(draw: random.Random) -> str:
    return "".join(draw.choices(string.digits + " .-()/+:@", k=draw.randrange(5, 30)))


MAKERS = (_phone, _phone, _phone, _email, _card, _iban, _address, _ssn, _noise)


def _documents() -> Iterator[str]:
    draw = random.Random("documents of the gate test")
    for _ in range(DOCUMENTS):
        words = draw.choices(PROSE.split(), k=draw.randrange(5, 50))
        for _ in range(draw.choice((0, 1, 1, 2, 4))):
            planted = draw.choice(MAKERS)(draw)
            planted = draw.choice(("{}", "{}", "({})", "{},", "'{}'", "x={}", "<{}>", "{}.")).format(planted)
            words.insert(draw.randrange(len(words) + 1), planted)
        yield draw.choice((" ", " ", "\n")).join(words)


@pytest.fixture
def presidio(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Presidio's own recognisers as they come, but for the download of public suffixes."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as theirs

    local = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    monkeypatch.setattr("tldextract.tldextract.TLD_EXTRACTOR", local)
    monkeypatch.setattr("tldextract.extract", local)
    return [
        theirs.EmailRecognizer(), theirs.PhoneRecognizer(), theirs.CreditCardRecognizer(), theirs.IbanRecognizer(),
        theirs.IpRecognizer(), theirs.UsSsnRecognizer(),
    ]  # fmt: skip


@pytest.mark.req("K67")
def test_the_gate_misses_nothing_that_presidio_finds(presidio: list[Any], nameless: Redactor) -> None:
    found = missed = 0
    for text in _documents():
        ours = {place for span in nameless.find(text) for place in range(span.start, span.end)}
        for recogniser in presidio:
            for result in recogniser.analyze(text, recogniser.supported_entities, None):
                if result.score < LEAST:
                    continue
                found += 1
                if not ours.issuperset(range(result.start, result.end)):
                    missed += 1
                    print(recogniser.name, result.score, repr(text[max(0, result.start - 15) : result.end + 15]))
    assert found > 1_500, "the generator must plant enough for the comparison to mean something"
    assert missed == 0


def test_the_key_changes_stand_ins_and_nothing_else() -> None:
    one, other = Redactor(names=False, key=KEY), Redactor(names=False, key=KEY[::-1])
    for text in list(_documents())[:50]:
        assert one.find(text) == other.find(text)
        assert one.redact(text).counts == other.redact(text).counts
    assert one.redact("a@b.com").text != other.redact("a@b.com").text
