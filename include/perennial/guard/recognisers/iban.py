"""IBANs: Presidio's pattern with the country's format and the check digits (ISO 13616, ISO 7064 MOD 97-10).

Presidio wants capitals; people write ``gb42nawi...`` too, so an unbroken word in small letters is read as capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from perennial.guard.recognisers._presidio import Place, Windowed
from perennial.guard.spans import Kind

_CAPITALS = re.compile(r"(?<![A-Z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){8,34}")
_MIXED = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}[A-Za-z0-9]{8,30}(?![A-Za-z0-9])")


class _InCapitals:
    """Shows Presidio unbroken words in capitals; places stay the same, since ASCII keeps its length."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:
        results = list(self._engine.analyze(text, entities, nlp_artifacts))
        raised = _MIXED.sub(lambda word: word.group().upper(), text)
        if raised != text:
            results += self._engine.analyze(raised, entities, nlp_artifacts)
        return results


def build() -> Windowed:
    """The recogniser of IBANs."""
    from presidio_analyzer.predefined_recognizers import IbanRecognizer

    return Windowed(Kind.IBAN_CODE, _InCapitals(IbanRecognizer()), places)


def places(text: str) -> Iterator[Place]:
    """Two letters, two digits, and at least eight letters or digits more."""
    for pattern in (_CAPITALS, _MIXED):
        for found in pattern.finditer(text):
            yield found.span()
