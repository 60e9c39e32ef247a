"""Stand-ins: same type, nobody's, told from the real thing, the same for the same value."""

from __future__ import annotations

import ipaddress

import pytest

from perennial.guard.draft import Draft
from perennial.guard.redactor import Redactor
from perennial.guard.spans import Kind, Span
from perennial.guard.surrogates import MASK, is_surrogate, mask_surrogates, surrogate
from tests.unit.guard.conftest import KEY

VALUES = {
    Kind.EMAIL_ADDRESS: ("jane@corp.com", "john@corp.com"),
    Kind.URL_CREDENTIALS: ("https://a:b@c.com/", "https://a:b@d.com/"),
    Kind.IBAN_CODE: ("GB82 WEST 1234 5698 7654 32", "DE89370400440532013000"),
    Kind.CREDIT_CARD: ("4111 1111 1111 1111", "378282246310005"),
    Kind.US_SSN: ("123-45-6789", "987-65-4321"),
    Kind.IP_ADDRESS: ("203.0.113.7", "2001:db8::1"),
    Kind.PHONE_NUMBER: ("(212) 555-0142", "+44 20 7946 0958"),
    Kind.STREET_ADDRESS: ("12 Main Street", "350 Fifth Avenue"),
    Kind.PERSON: ("Jane Doe", "Smith"),
}


def test_every_kind_is_covered() -> None:
    assert set(VALUES) == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_stand_in_is_known_as_one_and_the_value_is_not(kind: Kind) -> None:
    for value in VALUES[kind]:
        made = surrogate(kind, value, KEY)
        assert is_surrogate(kind, made), made
        assert not is_surrogate(kind, value)
        assert set(mask_surrogates(f"before {made}, after")) == set("before , after") | {MASK}


@pytest.mark.req("K68")
@pytest.mark.parametrize("kind", Kind)
def test_a_detector_of_its_kind_still_reads_it_as_that_kind_or_as_nothing(kind: Kind, redactor: Redactor) -> None:
    made = surrogate(kind, VALUES[kind][0], KEY)
    assert redactor.scan(f"before {made}, after") == {}
    assert redactor.redact(f"before {made}, after").text == f"before {made}, after"


@pytest.mark.parametrize("kind", Kind)
def test_same_value_same_stand_in_other_value_other_stand_in(kind: Kind) -> None:
    one, other = VALUES[kind]
    assert surrogate(kind, one, KEY) == surrogate(kind, one, KEY)
    assert surrogate(kind, one, KEY) != surrogate(kind, other, KEY)
    assert surrogate(kind, one, KEY) != surrogate(kind, one, b"another key")


def test_spellings_of_one_value_share_a_stand_in() -> None:
    for kind, one, other in (
        (Kind.CREDIT_CARD, "4111-1111-1111-1111", "4111111111111111"),
        (Kind.PHONE_NUMBER, "(212) 555-0142", "212.555.0142"),
        (Kind.EMAIL_ADDRESS, "Jane@Corp.com", "jane@corp.COM"),
        (Kind.IBAN_CODE, "gb82west12345698765432", "GB82 WEST 1234 5698 7654 32"),
        (Kind.PERSON, "JANE DOE", "Jane  Doe"),
    ):
        assert surrogate(kind, one, KEY) == surrogate(kind, other, KEY)


def test_a_surname_alone_keeps_the_surname_of_the_full_name() -> None:
    assert surrogate(Kind.PERSON, "Jane Doe", KEY).endswith(surrogate(Kind.PERSON, "Doe", KEY))


def test_ranges_are_nobodys() -> None:
    card = surrogate(Kind.CREDIT_CARD, "4111 1111 1111 1111", KEY).replace(" ", "")
    digits = [int(digit) for digit in reversed(card)]
    assert card.startswith("000000")
    assert (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0
    iban = surrogate(Kind.IBAN_CODE, "DE89370400440532013000", KEY)
    assert int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1
    four = ipaddress.ip_address(surrogate(Kind.IP_ADDRESS, "203.0.113.7", KEY))
    six = ipaddress.ip_address(surrogate(Kind.IP_ADDRESS, "fe80::1", KEY))
    assert four.is_reserved
    assert not four.is_global
    assert (six.version, six.is_global) == (6, False)
    assert surrogate(Kind.US_SSN, "123-45-6789", KEY)[:4] == "000-"
    assert "-555-01" in surrogate(Kind.PHONE_NUMBER, "(212) 555-0142", KEY)
    assert surrogate(Kind.EMAIL_ADDRESS, "jane@corp.com", KEY).endswith("@redacted.example")


def test_what_people_use_as_examples_is_not_taken_for_ours() -> None:
    for kind, value in (
        (Kind.PHONE_NUMBER, "+1-212-555-0142"),
        (Kind.PHONE_NUMBER, "+1-212-555-0142 x1234"),
        (Kind.IP_ADDRESS, "192.0.2.1"),
        (Kind.IP_ADDRESS, "2001:db8::1"),
        (Kind.EMAIL_ADDRESS, "user@redacted.example"),
        (Kind.CREDIT_CARD, "0000 0000 0000 0001"),
        (Kind.PERSON, "Robin Qasemi"),
        (Kind.IBAN_CODE, "ZZ000000000012345678"),
    ):
        assert not is_surrogate(kind, value), value


def test_a_draft_sets_stand_ins_apart_from_letters_and_from_each_other() -> None:
    draft = Draft.of("aab@c.deb").without([Span(1, 4, Kind.US_SSN), Span(4, 8, Kind.US_SSN)], KEY)
    left, right = draft.pieces
    assert draft.rest == f"a{MASK}{MASK}b"
    assert draft.text() == f"a {left} {right} b"


def test_a_mask_character_of_the_text_itself_stays() -> None:
    assert Draft.of(f"a{MASK}b {MASK}").text() == f"a{MASK}b {MASK}"
