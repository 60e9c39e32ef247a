"""Each recogniser against a table: text, number of finds, spans."""

from __future__ import annotations

import importlib

import pytest

from perennial.guard.recognisers import Recogniser, recognisers
from perennial.guard.spans import Kind, joined

TABLES: dict[str, list[tuple[str, int, tuple[tuple[int, int], ...]]]] = {
    "email": [
        ("jane@example.com", 1, ((0, 16),)),
        ("write to j.doe+news@mail.corp.co.uk.", 1, ((9, 35),)),
        ("an intern, jane@corp.internal, wrote", 1, ((11, 29),)),
        ("o'neil@example.org and x@y.org", 2, ((0, 18), (23, 30))),
        ("müller@bücher.example", 1, ((0, 21),)),
        ("@handle without a domain, a@b, me @ home.com", 0, ()),
        ("version a@1.2", 0, ()),
    ],
    "phone": [
        ("call (212) 555-0142 now", 1, ((5, 19),)),
        ("212-555-0142", 1, ((0, 12),)),
        ("+44 20 7946 0958 is the desk", 1, ((0, 16),)),
        ("+1-743-438-6774x62406", 1, ((0, 21),)),
        ("Mobile: 92 34 70", 1, ((8, 16),)),
        ("61487 office", 0, ()),
        ("0391 4479 22 fax", 1, ((0, 12),)),
        ("٠٢١٢ ٥٥٥ ٠١٤٢ tel", 1, ((0, 13),)),
        ("It rained on 12 of 31 days and cost 1,250,000 euros", 0, ()),
        ("call me on 2024-05-06", 0, ()),
        ("the season 2021/2022 ended 3-1", 0, ()),
    ],
    "credit_card": [
        ("4111 1111 1111 1111", 1, ((0, 19),)),
        ("4111-1111-1111-1111 and 378282246310005", 2, ((0, 19), (24, 39))),
        ("2223003122003222", 1, ((0, 16),)),
        ("6304 0000 0000 0000", 1, ((0, 19),)),
        ("order 4111111111111112", 0, ()),
        ("my card is 4111111111111112", 1, ((11, 27),)),
        ("1234567890123456", 0, ()),
        ("pi is 3.14159265358979323846", 0, ()),
    ],
    "iban": [
        ("GB82 WEST 1234 5698 7654 32", 1, ((0, 27),)),
        ("pay DE89370400440532013000 2 days from today", 1, ((4, 26),)),
        ("gb82west12345698765432", 1, ((0, 22),)),
        ("GB83 WEST 1234 5698 7654 32", 0, ()),
        ("AB12 CDEF GHIJ", 0, ()),
    ],
    "ip_address": [
        ("from 203.0.113.7 today", 1, ((5, 16),)),
        ("2001:db8::1, fe80::1%eth0", 2, ((0, 11), (13, 25))),
        ("6e40:4041:c617:e898:c11:40d2:c669:2eb4", 1, ((0, 38),)),
        ("::ffff:10.1.2.3", 1, ((0, 15),)),
        ("at 12:30:45 it was 999.1.2.3", 0, ()),
        ("std::vector and a: b", 0, ()),
    ],
    "us_ssn": [
        ("123-45-6789", 1, ((0, 11),)),
        ("123 45 6789 and 987.65.4321", 2, ((0, 11), (16, 27))),
        ("his social security number is 123456789", 1, ((30, 39),)),
        ("parcel 123456789", 0, ()),
        ("123-45 6789", 0, ()),
    ],
    "url_credentials": [
        ("https://bob:pw@host.example/x", 1, ((0, 29),)),
        ("see https://host.example/x?token=abcdef now", 1, ((4, 39),)),
        ("https://host.example/x?page=2 ftp://host.example", 0, ()),
        ("https://host.example/@handle", 0, ()),
    ],
    "street_address": [
        ("at 12 Main Street, Apt. 4", 1, ((3, 25),)),
        ("350 Fifth Avenue", 1, ((0, 16),)),
        ("P.O. Box 123", 1, ((0, 12),)),
        ("they lost 12 matches on Main Street", 0, ()),
    ],
    "lone_name": [
        ("Grace said it.", 1, ((0, 5),)),
        ("They told Hope to wait.", 1, ((10, 14),)),
        ("Jane Grace said it.", 0, ()),
        ("China said exports rose.", 0, ()),
        ("By the grace of all.", 0, ()),
    ],
    "person": [
        ("Contact Jane Doe.", 1, ((8, 16),)),
        ("Mr. Kowalczyk and Dr Who-Ever", 2, ((4, 13), (21, 29))),
        ("José García's house", 1, ((0, 13),)),
        ("Jane van der Berg spoke. Later Berg left.", 2, ((0, 17), (31, 35))),
        ("my name is Xzqy Wvut", 1, ((11, 20),)),
        ("Kofi A. Annan-Smith", 1, ((0, 19),)),
        ("Madison Square Garden on Monday in San Diego", 0, ()),
        ("Lake Charles and Hurricane Rita", 0, ()),
        ("Contact customer service. The Bank of England said so.", 0, ()),
    ],
}


def _recogniser(name: str) -> Recogniser:
    return importlib.import_module(f"perennial.guard.recognisers.{name}").build()


@pytest.mark.req("K67")
@pytest.mark.parametrize("name", TABLES)
def test_finds_what_the_table_says(name: str) -> None:
    recogniser = _recogniser(name)
    for text, count, spans in TABLES[name]:
        found = joined(recogniser.find(text))
        assert (len(found), tuple((span.start, span.end) for span in found)) == (count, spans), text
        assert {span.kind for span in found} <= {recogniser.kind}


def test_every_recogniser_has_a_table_and_a_kind_of_its_own() -> None:
    everything = recognisers()
    assert {each.kind for each in everything} == set(Kind)
    assert len(everything) == len(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_empty_and_blank_texts_hold_nothing(name: str) -> None:
    recogniser = _recogniser(name)
    assert [recogniser.find(text) for text in ("", " ", "\n\t", "\ufffc", "no digits, no capitals")] == [[]] * 5
