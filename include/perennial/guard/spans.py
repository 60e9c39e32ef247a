"""Where personal data stands in a text, and how overlapping finds are joined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of personal data, under Presidio's names where it has one. Earlier members win an overlap."""

    URL_CREDENTIALS = "URL_CREDENTIALS"
    EMAIL_ADDRESS = "EMAIL_ADDRESS"
    IBAN_CODE = "IBAN_CODE"
    CREDIT_CARD = "CREDIT_CARD"
    US_SSN = "US_SSN"
    IP_ADDRESS = "IP_ADDRESS"
    PHONE_NUMBER = "PHONE_NUMBER"
    STREET_ADDRESS = "STREET_ADDRESS"
    PERSON = "PERSON"


_RANK = {kind: rank for rank, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Code points ``start`` to ``end`` (exclusive) of a text hold personal data of one kind.

    ``sure`` False: the detector would have a person look at it.
    """

    start: int
    end: int
    kind: Kind
    sure: bool = field(default=True, repr=False, compare=False)

    def of(self, text: str) -> str:
        """The words that this span covers."""
        return text[self.start : self.end]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, overlapping ones as one that covers both and bears the kind of higher rank.

    Covering both (and not only the winner) means that an overlap never leaves half of a number behind. The whole is sure
    when a part of it is.

    >>> joined([Span(3, 9, Kind.PHONE_NUMBER), Span(0, 5, Kind.CREDIT_CARD), Span(20, 22, Kind.PERSON)])[0]
    Span(start=0, end=9, kind=<Kind.CREDIT_CARD: 'CREDIT_CARD'>)
    """
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.start < result[-1].end:
            last = result[-1]
            kind = min(last.kind, span.kind, key=_RANK.__getitem__)
            result[-1] = Span(last.start, max(last.end, span.end), kind, last.sure or span.sure)
        else:
            result.append(span)
    return result
