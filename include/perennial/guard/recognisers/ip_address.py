"""IP addresses, version 4 and 6, by Presidio's patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator

from perennial.guard.recognisers._presidio import Place, Windowed
from perennial.guard.spans import Kind

_FOUR = re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?")
_SIX = re.compile(
    r"(?<![\w:])[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,60}(?:%\w{1,16})?(?:/\d{1,3})?(?![\w:])"
)


def build() -> Windowed:
    """The recogniser of IP addresses."""
    from presidio_analyzer.predefined_recognizers import IpRecognizer

    return Windowed(Kind.IP_ADDRESS, IpRecognizer(), places, margin=6)


def places(text: str) -> Iterator[Place]:
    """Four numbers between dots, or hexadecimal groups between colons."""
    for found in _FOUR.finditer(text):
        yield found.span()
    if ":" in text:
        for found in _SIX.finditer(text):
            yield found.span()
