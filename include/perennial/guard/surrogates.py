"""Stand-ins for personal data that keep its type, never belong to anyone, and can be told from the real thing.

Each lies in a range that its registry keeps out of use: RFC 2606 (``.example``), 555-01xx telephone numbers (NANPA),
RFC 6890 240.0.0.0/4 and 2001:db8::/32, social security numbers of area 000, card numbers of issuer 0000 00
(ISO/IEC 7812 major industry 0), IBANs of the user-assigned country ZZ (ISO 3166).
A person becomes a first name of a short list and an invented surname. Where a range is small or also used by people for
examples, a public check digit tells our stand-ins from theirs, so that an example address in a text is still replaced.

The choice is HMAC-SHA256 (RFC 2104) of kind and canonical value under the deployment's key: the same value gets the same
stand-in in every text, and nobody without the key can test a guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from perennial.domain.standins import FIRST, PERSON, SURNAME, good_surname, surname_of
from perennial.guard.spans import Kind

MASK = "\ufffc"  # OBJECT REPLACEMENT CHARACTER: no letter, digit, blank or punctuation of any pattern


@dataclass(frozen=True, slots=True)
class _Bits:
    """Numbers drawn from one digest."""

    value: int

    def draw(self, size: int) -> tuple[int, _Bits]:
        return self.value % size, _Bits(self.value // size)


def surrogate(kind: Kind, value: str, key: bytes) -> str:
    """The stand-in for one value.

    >>> surrogate(Kind.EMAIL_ADDRESS, "Jane.Doe@Corp.com", b"k") == surrogate(Kind.EMAIL_ADDRESS, "jane.doe@corp.com", b"k")
    True
    >>> surrogate(Kind.CREDIT_CARD, "4111-1111-1111-1111", b"k").startswith("0000 00")
    True
    """
    if kind is Kind.PERSON:
        return _person(value, key)
    if kind is Kind.IP_ADDRESS and ":" in value:
        return _ip6(_digest(kind, _canonical(kind, value), key))
    return _MAKERS[kind](_digest(kind, _canonical(kind, value), key))


def mask_surrogates(text: str) -> str:
    """The text with every stand-in of ours blotted out, at the same length, so that detectors do not find it.

    >>> mask_surrogates("to user-00c0ffee@redacted.example now").count(chr(0xFFFC))
    30
    """
    for form, check in _FORMS.values():
        text = form.sub(partial(_blot, check), text)
    return text


def is_surrogate(kind: Kind, value: str) -> bool:
    """Whether a value is one of our stand-ins of that kind.

    >>> is_surrogate(Kind.US_SSN, "000-12-3456"), is_surrogate(Kind.US_SSN, "123-45-6789")
    (True, False)
    """
    form, check = _FORMS[kind]
    found = form.fullmatch(value)
    return found is not None and check(found)


def _blot(check: Callable[[re.Match[str]], bool], found: re.Match[str]) -> str:
    return MASK * len(found.group()) if check(found) else found.group()


def _digest(kind: str, canonical: str, key: bytes) -> _Bits:
    text = f"{kind}\0{canonical}".encode("utf-8", "surrogatepass")
    return _Bits(int.from_bytes(hmac.new(key, text, hashlib.sha256).digest(), "big"))


def _canonical(kind: Kind, value: str) -> str:
    """One form for all spellings of a value."""
    if kind in (Kind.PHONE_NUMBER, Kind.CREDIT_CARD, Kind.US_SSN):
        return "".join(character for character in value if character.isdigit())
    if kind is Kind.IBAN_CODE:
        return re.sub(r"[ -]", "", value).upper()
    return " ".join(value.casefold().split())


def _email(bits: _Bits) -> str:
    return f"user-{bits.draw(16**8)[0]:08x}@redacted.example"


def _url(bits: _Bits) -> str:
    return f"https://redacted.example/{bits.draw(16**8)[0]:08x}"


def _phone(bits: _Bits) -> str:
    area, bits = bits.draw(800)
    extension, _ = bits.draw(10_000)
    return f"+1-{area + 200}-555-01{_phone_check(area + 200, extension):02d} x{extension:04d}"


def _phone_check(area: int, extension: int) -> int:
    return (area * 10_000 + extension) % 97


def _luhn_digit(digits: str) -> int:
    """The digit that makes ``digits`` valid (Luhn, ISO/IEC 7812-1)."""
    doubled = [int(d) * 2 if place % 2 == 0 else int(d) for place, d in enumerate(reversed(digits))]
    return -sum(d - 9 if d > 9 else d for d in doubled) % 10


def _card(bits: _Bits) -> str:
    body = f"000000{bits.draw(10**9)[0]:09d}"
    number = f"{body}{_luhn_digit(body)}"
    return " ".join(number[start : start + 4] for start in range(0, 16, 4))


def _iban(bits: _Bits) -> str:
    account = f"{bits.draw(10**8)[0]:016d}"
    return f"ZZ{_iban_check(account):02d}{account}"


def _iban_check(account: str) -> int:
    """ISO 7064 MOD 97-10; ZZ is 3535."""
    return 98 - int(f"{account}353500") % 97


def _ip(bits: _Bits) -> str:
    second, bits = bits.draw(256)
    third, _ = bits.draw(256)
    return f"240.{second}.{third}.{_ip_check(second, third)}"


def _ip6(bits: _Bits) -> str:
    """RFC 3849 documentation range; the two groups after it are "pere" in ASCII and mark ours."""
    number = bits.draw(2**64)[0]
    return "2001:db8:7065:7265:" + ":".join(f"{number >> shift & 0xFFFF:04x}" for shift in (48, 32, 16, 0))


def _ip_check(second: int, third: int) -> int:
    return (second * 31 + third * 17 + 97) % 256


def _ssn(bits: _Bits) -> str:
    group, bits = bits.draw(99)
    serial, _ = bits.draw(9999)
    return f"000-{group + 1:02d}-{serial + 1:04d}"


def _street(bits: _Bits) -> str:
    number, bits = bits.draw(899)
    return f"{number + 100} {_surname(bits)} Street"


def _surname(bits: _Bits) -> str:
    vowel, bits = bits.draw(5)
    parts = []
    for _ in range(3):
        part, bits = bits.draw(60)
        parts.append(part)
    return surname_of(vowel, parts)


def _person(value: str, key: bytes) -> str:
    """Word by word, so that ``Doe`` alone gets the surname that ``Jane Doe`` got; initials go."""
    words = [word for word in re.findall(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*", value) if len(word) > 1] or [value]
    last = _surname(_digest(Kind.PERSON, words[-1].casefold(), key))
    if len(words) == 1:
        return last
    first, _ = _digest("FIRST", words[0].casefold(), key).draw(len(FIRST))
    return f"{FIRST[first]} {last}"


def _good_phone(found: re.Match[str]) -> bool:
    return _phone_check(int(found["area"]), int(found["extension"])) == int(found["check"])


def _good_card(found: re.Match[str]) -> bool:
    digits = found.group().replace(" ", "")
    return _luhn_digit(digits[:-1]) == int(digits[-1])


def _good_iban(found: re.Match[str]) -> bool:
    return _iban_check(found["account"]) == int(found["check"])


def _good_ip(found: re.Match[str]) -> bool:
    if found["second"] is None:
        return True
    return _ip_check(int(found["second"]), int(found["third"])) == int(found["check"])


def _always(_: re.Match[str]) -> bool:
    return True


_MAKERS: dict[Kind, Callable[[_Bits], str]] = {
    Kind.EMAIL_ADDRESS: _email,
    Kind.URL_CREDENTIALS: _url,
    Kind.PHONE_NUMBER: _phone,
    Kind.CREDIT_CARD: _card,
    Kind.IBAN_CODE: _iban,
    Kind.IP_ADDRESS: _ip,
    Kind.US_SSN: _ssn,
    Kind.STREET_ADDRESS: _street,
}

_FORMS: dict[Kind, tuple[re.Pattern[str], Callable[[re.Match[str]], bool]]] = {
    Kind.EMAIL_ADDRESS: (re.compile(r"(?<!\w)user-[0-9a-f]{8}@redacted\.example(?!\w)"), _always),
    Kind.URL_CREDENTIALS: (re.compile(r"(?<!\w)https://redacted\.example/[0-9a-f]{8}(?!\w)"), _always),
    Kind.PHONE_NUMBER: (
        re.compile(r"(?<!\w)\+1-(?P<area>\d{3})-555-01(?P<check>\d\d) x(?P<extension>\d{4})(?!\w)", re.ASCII),
        _good_phone,
    ),
    Kind.CREDIT_CARD: (re.compile(r"(?<!\w)0000 00\d\d \d{4} \d{4}(?!\w)", re.ASCII), _good_card),
    Kind.IBAN_CODE: (re.compile(r"(?<!\w)ZZ(?P<check>\d\d)(?P<account>0{8}\d{8})(?!\w)", re.ASCII), _good_iban),
    Kind.IP_ADDRESS: (
        re.compile(
            r"(?<!\w)(?:240\.(?P<second>\d{1,3})\.(?P<third>\d{1,3})\.(?P<check>\d{1,3})"
            r"|2001:db8:7065:7265(?::[0-9a-f]{4}){4})(?!\w)",
            re.ASCII,
        ),
        _good_ip,
    ),
    Kind.US_SSN: (re.compile(r"(?<!\w)000-\d\d-\d{4}(?!\w)", re.ASCII), _always),
    Kind.STREET_ADDRESS: (re.compile(rf"(?<!\w)\d{{3}} {SURNAME} Street(?!\w)", re.ASCII), good_surname),
    Kind.PERSON: (PERSON, good_surname),
}
