"""US social security numbers: Presidio's patterns, the weak ones (nine digits) only beside a word that names them.

Unlike Presidio, published sample numbers and areas that were never issued count too: who writes 123-45-6789 after "my SSN"
may have changed one digit of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from perennial.guard.recognisers._context import after_word
from perennial.guard.recognisers._presidio import LIMIT, Place, Windowed
from perennial.guard.spans import Kind, Span

_SHAPE = re.compile(r"(?<!\w)\d{3}(?P<by>[- .])\d{2}(?P=by)\d{4}(?!\w)")
_NINE = re.compile(r"(?<!\w)\d{3}-?\d{2}-?\d{4}(?!\w)|(?<!\w)\d{3} \d{6}(?!\w)")
_NAMED = after_word(r"ssns?|ssid|social|social security|soc sec|tax ?payer|tin|itin|ss#")


class UsSsn:
    """Shaped numbers anywhere, nine digits beside the name of the number."""

    kind = Kind.US_SSN

    def __init__(self, shaped: Windowed) -> None:
        self._shaped = shaped

    def find(self, text: str) -> list[Span]:
        """Spans of social security numbers."""
        found = self._shaped.find(text)
        nines = islice(_NINE.finditer(text), LIMIT)  # a text with more is no prose, and phone.py takes all its numbers
        found += [Span(*nine.span(), self.kind) for nine in nines if _NAMED(text, nine.start())]
        return found


def build() -> UsSsn:
    """The recogniser of US social security numbers."""
    from presidio_analyzer.predefined_recognizers import UsSsnRecognizer

    class AnyArea(UsSsnRecognizer):  # type: ignore[misc]
        def invalidate_result(self, pattern_text: str) -> bool:
            return len({character for character in pattern_text if not character.isdigit()}) > 1

    return UsSsn(Windowed(Kind.US_SSN, AnyArea(), places, least=0.4))


def places(text: str) -> Iterator[Place]:
    """Digits in groups of three, two and four."""
    for found in _SHAPE.finditer(text):
        yield found.span()
