"""Payment card numbers: Presidio's pattern with its Luhn check, the issuers that it leaves out, and the context.

ISO/IEC 7812 allows 12 to 19 digits; issuers start with 1 to 6. A number of 13 digits or more that people call a card
counts even when its check digit is wrong: a mistyped number is still a person's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from perennial.guard.recognisers._context import after_word
from perennial.guard.recognisers._presidio import LIMIT, Place, Windowed
from perennial.guard.spans import Kind, Span

_RUN = re.compile(r"\d[\d \-.]{10,}\d")
_CALLED_CARD = after_word(r"cards?|visa|master ?card|amex|american express|discover|maestro|credit|debit|cc|ccn|pan")
_TYPED = re.compile(r"(?<![\d.])[1-6]\d{3}(?:[ \-.]?\d){8,15}(?![\d])")
_LONGEST = 400  # of one window; longer runs of digits are cut, overlapping by more than one number
_OVERLAP = 48


class CreditCard:
    """Luhn-valid numbers anywhere, and any number of that length that the text calls a card."""

    kind = Kind.CREDIT_CARD

    def __init__(self, checked: Windowed) -> None:
        self._checked = checked

    def find(self, text: str) -> list[Span]:
        """Spans of card numbers."""
        found = self._checked.find(text)
        for start, end in islice(places(text), LIMIT):  # all further ones count as found by the check
            for typed in _TYPED.finditer(text, start, end):
                if _digits(typed.group()) >= 13 and _CALLED_CARD(text, typed.start()):
                    found.append(Span(typed.start(), typed.end(), self.kind))
        return found


def build() -> CreditCard:
    """The recogniser of card numbers."""
    from presidio_analyzer import Pattern
    from presidio_analyzer.predefined_recognizers import CreditCardRecognizer

    wider = [
        *CreditCardRecognizer.PATTERNS,
        Pattern("Unbroken", r"(?<![\d.])[2-6]\d{11,18}(?![\d])", 0.3),
        Pattern("Groups of four", r"(?<![\d.])[1-6]\d{3}(?P<by>[ \-.])\d{4}(?P=by)\d{4}(?P=by)\d{1,7}(?!\d)", 0.3),
        Pattern("4-6-4 and 4-6-5", r"(?<![\d.])3\d{3}(?P<by>[ \-.])\d{6}(?P=by)\d{4,5}(?!\d)", 0.3),
        Pattern("JCB of 15", r"(?<![\d.])(?:2131|1800)\d{11}(?!\d)", 0.3),
    ]
    pairs = [("-", ""), (" ", ""), (".", "")]
    return CreditCard(Windowed(Kind.CREDIT_CARD, CreditCardRecognizer(patterns=wider, replacement_pairs=pairs), places))


def places(text: str) -> Iterator[Place]:
    """Runs of digits, blanks, hyphens and dots that hold 12 digits or more."""
    for run in _RUN.finditer(text):
        for start in range(run.start(), run.end(), _LONGEST - _OVERLAP):
            end = min(start + _LONGEST, run.end())
            if _digits(text[start:end]) >= 12:
                yield start, end
            if end == run.end():
                break


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))
