"""Street addresses as they are written in English: house number, capitalised name, kind of street; and post boxes.

Presidio has no recogniser for them; the pattern is ours, run by Presidio's. Addresses of other countries need the tagger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perennial.guard.recognisers._presidio import Place, Windowed
from perennial.guard.spans import Kind

_STREET = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Terrace|Place|Pl|Square|Sq|Parkway|Pkwy|"
    "Crescent|Highway|Hwy|Alley|Mews"
)
_UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Fl|#)\.? ?\w{1,6})?"
_HOUSE = re.compile(
    r"(?<![\w.,$€£-])(?<!No\. )\d{1,5}[A-Za-z]? (?:(?:N|S|E|W|North|South|East|West)\.? )?"
    rf"(?:[A-Z][\w'’.-]{{0,24}} ){{1,3}}(?:{_STREET})\b\.?{_UNIT}"
)
_BOX = re.compile(r"\b(?:P\.? ?O\.? ?Box|Post Office Box|PSC \d{1,5},? Box|Unit \d{1,5},? Box) \d{1,6}\b")


def build() -> Windowed:
    """The recogniser of street addresses."""
    from presidio_analyzer import Pattern, PatternRecognizer

    engine = PatternRecognizer(
        supported_entity=Kind.STREET_ADDRESS.value,
        patterns=[Pattern("House and street", _HOUSE.pattern, 0.6), Pattern("Post box", _BOX.pattern, 0.6)],
        global_regex_flags=re.MULTILINE,  # capitals matter
    )
    return Windowed(Kind.STREET_ADDRESS, engine, places)


def places(text: str) -> Iterator[Place]:
    """House numbers before capitalised words, and boxes."""
    for pattern in (_HOUSE, _BOX):
        for found in pattern.finditer(text):
            yield found.span()
