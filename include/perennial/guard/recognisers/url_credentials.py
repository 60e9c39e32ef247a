"""URLs that carry a secret: a user name and password before the host, or a token in the query.

Plain URLs are no personal data and stay; Presidio has no recogniser for these, so the pattern is ours, run by Presidio's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perennial.guard.recognisers._presidio import Place, Windowed
from perennial.guard.spans import Kind

_URL = re.compile(r"(?<![A-Za-z])[A-Za-z][A-Za-z0-9+.\-]{1,15}://[^\s<>\"']{3,2000}")
_USER = r"\A[A-Za-z][A-Za-z0-9+.\-]{1,15}://[^\s/?#@<>\"']{1,256}@[^\s<>\"']{1,2000}"
_TOKEN = (
    r"\A[A-Za-z][A-Za-z0-9+.\-]{1,15}://[^\s?#<>\"']{1,1000}[?#][^\s<>\"']{0,1000}?"
    r"\b(?:access_token|api_?key|auth|code|key|passw(?:or)?d|pwd|secret|session(?:id)?|sid|sig(?:nature)?|token)="
    r"[^\s&<>\"']{4,1000}[^\s<>\"']{0,1000}"
)


def build() -> Windowed:
    """The recogniser of URLs with credentials."""
    from presidio_analyzer import Pattern, PatternRecognizer

    engine = PatternRecognizer(
        supported_entity=Kind.URL_CREDENTIALS.value,
        patterns=[Pattern("User and password", _USER, 0.9), Pattern("Token in the query", _TOKEN, 0.8)],
    )
    return Windowed(Kind.URL_CREDENTIALS, engine, places, margin=0)


def places(text: str) -> Iterator[Place]:
    """URLs with an @ or an = in them."""
    if "://" not in text:
        return
    for found in _URL.finditer(text):
        if "@" in found.group() or "=" in found.group():
            yield found.span()
