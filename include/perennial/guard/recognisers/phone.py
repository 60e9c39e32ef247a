"""Telephone numbers: libphonenumber through Presidio, plus shapes and words around numbers that no plan confirms.

libphonenumber confirms numbers of eight regions. Made-up, mistyped and foreign numbers it lets pass, so a number in the
shape of the North American plan, one with a country code, or any of six digits or more beside a word such as "call" counts
as well. Seven digits as in 867-5309 are a local number, or a part number, or a score: that find is unsure, and a person may let
it stand. libphonenumber costs about 0.2 ms for a place: numbers found by shape or words do not reach it.
"""

from __future__ import annotations

import re
from itertools import islice

from perennial.guard.recognisers._context import after_word, before_word
from perennial.guard.recognisers._presidio import Place, Windowed
from perennial.guard.spans import Kind, Span

_PUNCTUATION = (
    r"\-x‐-―−ー－-／ \u00a0\u00ad\u200b\u2060\u3000()（）［］.\[\]/~⁓∼～"  # as libphonenumber allows between digits
)
_EXTENSION = r"(?:[ ,;]{0,3}(?:x|ext\.?|extn\.?|extension|#)[ :.]{0,2}\d{1,7})?"
_NUMBER = re.compile(
    rf"(?<![\d])[+＋(（\[]{{0,2}}\d(?:[{_PUNCTUATION}]{{0,4}}\d){{4,}}{_EXTENSION}(?!\d)", re.IGNORECASE
)
_NORTH_AMERICA = re.compile(
    r"(?<![\w.])(?:(?:\+?1|001)[-. ]{0,2})?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}" + _EXTENSION + r"(?!\w)",
    re.IGNORECASE,
)
_COUNTRY_CODE = re.compile(
    r"(?<!\w)(?:\+|00)[1-9]\d{0,2}[ \-.]?(?:\(\d{1,4}\)[ \-.]?)?\d(?:[ \-./]?\d){5,12}" + _EXTENSION + r"(?!\w)"
)
_LOCAL = re.compile(r"(?<![\w.,:/$€£#+-])(?<!\d )\d{3}-\d{4}(?![\w/%-])(?![. ]\d)")
_DATE = re.compile(
    r"\d{4}[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d{2}|(?:19|20)\d{2} ?[-–/] ?(?:19|20)?\d{2}"
)
_CALL = after_word(
    r"phones?|telephone|tel|mobile|cell|cellphone|calls?|calling|dial|fax|whats ?app|sms|hotline|voicemail|landline|desk|"
    r"direct line|reach|answering|ext|contact|text me"
)
_AT_OFFICE = before_word(r"office|fax|mobile|cell|home|work|desk|phone|tel")
_LONGEST = 60  # of one window; a longer run of digits is cut into overlapping windows
_OVERLAP = 24
_LIMIT = 100  # numbers of one text that are looked at; the rest count as found


class Phone:
    """Numbers by shape, by the words around, and by libphonenumber."""

    kind = Kind.PHONE_NUMBER

    def __init__(self, plan: Windowed) -> None:
        self._plan = plan

    def find(self, text: str) -> list[Span]:
        """Spans of telephone numbers."""
        found = [
            Span(*match.span(), self.kind)
            for shape in (_NORTH_AMERICA, _COUNTRY_CODE)
            for match in shape.finditer(text)
        ]
        found += [
            Span(*match.span(), self.kind)
            for match in islice(_NUMBER.finditer(text), _LIMIT)  # all further ones count as found by the plan
            if _is_told(text, match) and not _DATE.fullmatch(match.group())
        ]
        found += [Span(*match.span(), self.kind, sure=False) for match in islice(_LOCAL.finditer(text), _LIMIT)]
        return found + self._plan.find(text)


def build() -> Phone:
    """The recogniser of telephone numbers."""
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    return Phone(Windowed(Kind.PHONE_NUMBER, PhoneRecognizer(), places, margin=12, limit=_LIMIT))


def places(text: str) -> list[Place]:
    """Runs of five digits or more with little between them, cut to what libphonenumber reads at once."""
    cut: list[Place] = []
    for run in _NUMBER.finditer(text):
        for start in range(run.start(), run.end(), _LONGEST - _OVERLAP):
            end = min(start + _LONGEST, run.end())
            cut.append((start, end))
            if end == run.end():
                break
    return cut


def _is_told(text: str, number: re.Match[str]) -> bool:
    """Six to twenty digits beside a word that says telephone."""
    if not 6 <= sum(map(str.isdigit, number.group())) <= 20:
        return False
    return _CALL(text, number.start()) or _AT_OFFICE(text, number.end())
