"""Replaces personal data by stand-ins of the same type, and tells what is left.

Detection is best effort: structured identifiers are found by Presidio behind cheap gates, names by a tagger, lists and context. Runs in
the admit flow (which may read originals) and again in every training run, where a scan of redacted text must find nothing.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from perennial.domain.words import JSON
from perennial.errors import GuardError, GuardUnavailable
from perennial.guard.draft import Draft
from perennial.guard.edits import Edit
from perennial.guard.keys import deployment_key
from perennial.guard.recognisers import Recogniser, recognisers
from perennial.guard.spans import Kind, Span, joined
from perennial.guard.surrogates import mask_surrogates

logger = logging.getLogger(__name__)

REVISION = "2"  # raise it when the same text would come out otherwise: rows remember it
_GATE = re.compile(r"[@\d]|://|:[A-Fa-f]{0,4}:")  # no structured identifier is without one of these
_ROUNDS = 8
_STRUCTURE = re.compile(r"[\d@:]")
_DEEPEST = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Redaction:
    """A text without personal data, how many finds of each kind it had, and who redacted it."""

    text: str
    counts: Mapping[str, int]
    version: str
    edits: tuple[Edit, ...] = ()  # where the text differs from the one that was given, for labels on parts of it


class Redactor:
    """Finds and replaces personal data.

    ``names`` False leaves names of persons alone (an agent's explicit policy); direct identifiers always go.
    ``key`` chooses the stand-ins; by default it is the deployment's. Safe for threads. No network, ever.
    Raises GuardUnavailable when a detector cannot be built: the caller quarantines.
    """

    def __init__(self, *, names: bool, version: str = REVISION, key: bytes | None = None) -> None:
        self.names = names
        self.version = f"{version}{'' if names else '-nonames'}"
        self._key = key or deployment_key()
        everything = _built()
        self._always: tuple[Recogniser, ...] = tuple(each for each in everything if each.kind is not Kind.PERSON)
        self._named: tuple[Recogniser, ...] = tuple(each for each in everything if names and each.kind is Kind.PERSON)

    def find(self, text: str) -> list[Span]:
        """Spans of personal data that is not yet one of our stand-ins, in order, without overlaps."""
        spans = self._detect(text)
        if not spans:
            return []
        masked = mask_surrogates(text)
        return spans if masked == text else self._detect(masked)

    def scan(self, text: str) -> dict[str, int]:
        """How many finds of each kind are left; empty for a redacted text."""
        return dict(Counter(span.kind.value for span in self.find(text)))

    def redact(self, text: str) -> Redaction:
        """The text with a stand-in for each find. Redacting again changes nothing.

        A replacement can bring a neighbour to light (digits that belonged to a longer number), so what is left is looked at
        until nothing is found; in a hostile text without end, all digits and @ that are left go.
        Raises GuardError when a detector fails on this text: its row belongs in quarantine.
        """
        spans = self.find(text)
        if not spans:
            return Redaction(text=text, counts={}, version=self.version)
        counts: Counter[str] = Counter()
        draft = Draft.of(text)
        if draft.pieces:
            spans = self._detect(draft.rest)
        for _ in range(_ROUNDS):
            counts.update(span.kind.value for span in spans)
            draft = draft.without(spans, self._key)
            spans = self._detect(draft.rest)
            if not spans:
                return self._redaction(draft, counts)
        draft = Draft(_STRUCTURE.sub("#", draft.rest), draft.pieces, draft.origins)
        if self._detect(draft.rest):
            raise GuardError(f"personal data was still found after {_ROUNDS} rounds; the row must stay in quarantine")
        return self._redaction(draft, counts)

    def _redaction(self, draft: Draft, counts: Counter[str]) -> Redaction:
        text, edits = draft.whole()
        return Redaction(text=text, counts=dict(counts), version=self.version, edits=edits)

    def redact_many(self, texts: Iterable[str]) -> list[Redaction]:
        """Each text redacted, in order."""
        return [self.redact(text) for text in texts]

    def redact_json(self, value: JSON) -> JSON:
        """A JSON value with every string in it redacted, keys too; numbers, booleans and null stay.

        Raises GuardError for a value nested deeper than 100 levels.
        """
        return self._redact_json(value, 0)

    def _redact_json(self, value: JSON, depth: int) -> JSON:
        if depth > _DEEPEST:
            raise GuardError(f"a JSON value is nested deeper than {_DEEPEST} levels; send a flatter one")
        if isinstance(value, str):
            return self.redact(value).text
        if isinstance(value, dict):
            return {
                self._redact_json(key, depth + 1): self._redact_json(item, depth + 1) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._redact_json(item, depth + 1) for item in value]
        return value

    def _detect(self, text: str) -> list[Span]:
        spans: list[Span] = []
        try:
            if _GATE.search(text):
                for recogniser in self._always:
                    spans.extend(recogniser.find(text))
            for recogniser in self._named:
                spans.extend(recogniser.find(text))
        except GuardUnavailable:  # its message is ours; a detector that cannot be loaded is no fault of this text
            raise
        except Exception as problem:  # noqa: BLE001 - a foreign error's message may hold the text: only its type travels on
            raise GuardError(
                f"a detector of personal data failed on a text ({type(problem).__name__}); keep the row in quarantine"
            ) from None
        return joined(spans)


@lru_cache(maxsize=8)
def redactor_for(*, names: bool) -> Redactor:
    """The redactor of this process, built once for each policy. Raises GuardUnavailable when it cannot be built."""
    return Redactor(names=names)


@lru_cache(maxsize=1)
def _built() -> tuple[Recogniser, ...]:
    """The recognisers of this process; a failed build is not remembered, so the next call tries again."""
    try:
        return recognisers()
    except Exception as problem:
        raise GuardUnavailable(
            f"the detectors of personal data cannot be built ({type(problem).__name__}: {problem}); "
            "install presidio-analyzer and spacy of requirements.txt; rows wait in quarantine meanwhile"
        ) from problem
