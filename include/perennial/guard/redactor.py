"""Replaces personal data by stand-ins of the same type, and tells what is left.

Detection is best effort: structured identifiers are found by Presidio behind cheap gates, names by a tagger, lists and context. Runs in
the admit flow (which may read originals) and again in every training run, where a scan of redacted text must find nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from perennial.domain.redaction import Doubt
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
_AROUND = 60  # letters of redacted text beside a word that a person is asked about
_LONGEST_WORD = 80  # letters of it; no name and no number is longer
MOST_DOUBTS = 20  # different words of one text that a person is asked about; the others stay replaced
RECENT = 1024  # results that a process keeps


@dataclass(frozen=True, kw_only=True, slots=True)
class Redaction:
    """A text without personal data, how many finds of each kind it had, and which redactor it was.

    ``counts`` are all finds. ``unsure`` are those among them that their detector is not sure of: replaced like the others, and a
    person may say that they are no personal data (``doubts``, at most ``MOST_DOUBTS`` different words). ``cleared`` are the keys of
    words that were left standing because a person had said so. ``edits``: where the text differs from the one that was given, for
    labels on parts of it.
    """

    text: str
    counts: Mapping[str, int]
    version: str
    unsure: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = field(default=(), repr=False)
    cleared: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()


class Redactor:
    """Finds and replaces personal data.

    ``names`` False leaves names of persons alone (an agent's explicit policy); direct identifiers always go.
    ``key`` chooses the stand-ins; by default it is the deployment's. ``recent`` results are kept in memory by keyed digest.
    ``version`` changes with the rules (``REVISION``), with the recognisers that have a ``revision`` of their own (a tagger: the digest
    of its weights) and with the policy. Safe for threads. No network, ever.
    Raises GuardUnavailable when a detector cannot be built: the caller quarantines.
    """

    def __init__(
        self, *, names: bool, version: str = REVISION, key: bytes | None = None, recent: int = 0,
        detectors: Collection[Recogniser] | None = None,
    ) -> None:  # fmt: skip
        self.names = names
        self._key = key or deployment_key()
        everything = _built() if detectors is None else detectors
        self._always: tuple[Recogniser, ...] = tuple(each for each in everything if each.kind is not Kind.PERSON)
        self._named: tuple[Recogniser, ...] = tuple(each for each in everything if names and each.kind is Kind.PERSON)
        revisions = (getattr(each, "revision", "") for each in (*self._always, *self._named))
        self.version = "-".join((version, *sorted(filter(None, revisions)), *(() if names else ("nonames",))))
        self._recent = _Recent(recent)

    def find(self, text: str, cleared: Collection[str] = ()) -> list[Span]:
        """Spans of personal data that is not yet one of our stand-ins, in order, without overlaps.

        ``cleared``: keys of words (``Doubt.key``) that may stand where their detector is not sure.
        """
        spans = self._detect(text, cleared)
        if not spans:
            return []
        masked = mask_surrogates(text)
        return spans if masked == text else self._detect(masked, cleared)

    def scan(self, text: str, cleared: Collection[str] = ()) -> dict[str, int]:
        """How many finds of each kind are left, sure or not; empty for a redacted text."""
        return dict(Counter(span.kind.value for span in self.find(text, cleared)))

    def content_key(self, text: str) -> bytes:
        """Names a text in a cache: 16 bytes of HMAC-SHA256 (RFC 2104) under the deployment's key.

        A plain digest would let anybody who reads the cache test a guess at what somebody wrote.
        """
        return self._digest("text", text)[:16]

    def word_key(self, kind: Kind, word: str) -> str:
        """Names a word that a person is asked about, without telling it."""
        return self._digest(f"word\0{kind.value}", " ".join(word.casefold().split()))[:16].hex()

    def redact(self, text: str, cleared: Collection[str] = ()) -> Redaction:
        """The text with a stand-in for each find, also for those that a detector is not sure of. Redacting again changes nothing.

        A replacement can bring a neighbour to light (digits that belonged to a longer number), so what is left is looked at
        until nothing is found; in a hostile text without end, all digits and @ that are left go. Words of ``cleared`` stand where
        no detector is sure. Raises GuardError when a detector fails on this text: its row belongs in quarantine.
        """
        if cleared or not self._recent.size:
            return self._redact(text, cleared)
        name = self.content_key(text)
        known = self._recent.get(name)
        if known is None:
            known = self._redact(text, ())
            self._recent.put(name, known)
        return known

    def _redact(self, text: str, cleared: Collection[str]) -> Redaction:
        spans = self.find(text, cleared)
        standing = self._standing(text, cleared)
        if not spans:
            return Redaction(text=text, counts={}, version=self.version, cleared=standing)
        counts, unsure = Counter[str](), Counter[str]()
        draft = Draft.of(text)
        if draft.pieces:
            spans = self._detect(draft.rest, cleared)
        for _ in range(_ROUNDS):
            counts.update(span.kind.value for span in spans)
            unsure.update(span.kind.value for span in spans if not span.sure)
            draft = draft.without(spans, self._key)
            spans = self._detect(draft.rest, cleared)
            if not spans:
                break
        else:
            draft = Draft(_STRUCTURE.sub("#", draft.rest), draft.pieces, draft.origins, draft.asked)
            if self._detect(draft.rest, cleared):
                raise GuardError(
                    f"personal data was still found after {_ROUNDS} rounds; the row must stay in quarantine"
                )
        whole, edits = draft.whole()
        return Redaction(
            text=whole, counts=dict(counts), version=self.version, unsure=dict(unsure), cleared=standing,
            doubts=self._doubts(draft, whole, edits) if unsure else (), edits=edits,
        )  # fmt: skip

    def _doubts(self, draft: Draft, whole: str, edits: Sequence[Edit]) -> tuple[Doubt, ...]:
        """Each different word once, at its first place, between redacted text."""
        found: dict[str, Doubt] = {}
        for asked, edit in zip(draft.asked, edits, strict=True):
            if asked is None or len(asked[1]) > _LONGEST_WORD or len(found) == MOST_DOUBTS:
                continue
            kind, word = asked
            key = self.word_key(kind, word)
            before = whole[max(0, edit.new_start - _AROUND) : edit.new_start]
            after = whole[edit.new_end : edit.new_end + _AROUND]
            found.setdefault(key, Doubt(kind=kind.value, key=key, before=before, word=word, after=after))
        return tuple(found.values())

    def _standing(self, text: str, cleared: Collection[str]) -> tuple[str, ...]:
        """Which of ``cleared`` are in the text: a row remembers them, so that the second look lets them stand as well."""
        if not cleared:
            return ()
        keys = {self.word_key(span.kind, span.of(text)) for span in self.find(text) if not span.sure}
        return tuple(sorted(keys & set(cleared)))

    def _digest(self, what: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{what}\0{text}".encode("utf-8", "surrogatepass"), hashlib.sha256)

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

    def _detect(self, text: str, cleared: Collection[str] = ()) -> list[Span]:
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
        found = joined(spans)
        if not cleared:
            return found
        return [span for span in found if span.sure or self.word_key(span.kind, span.of(text)) not in cleared]


class _Recent:
    """The results of the last texts of this process, by keyed digest: the same text comes once for each task of an agent."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._guard = threading.Lock()
        self._known: OrderedDict[bytes, Redaction] = OrderedDict()

    def get(self, name: bytes) -> Redaction | None:
        with self._guard:
            found = self._known.get(name)
            if found is not None:
                self._known.move_to_end(name)
            return found

    def put(self, name: bytes, value: Redaction) -> None:
        with self._guard:
            self._known[name] = value
            while len(self._known) > self.size:
                self._known.popitem(last=False)


@lru_cache(maxsize=8)
def redactor_for(*, names: bool) -> Redactor:
    """The redactor of this process, built once for each policy. Raises GuardUnavailable when it cannot be built."""
    return Redactor(names=names, recent=RECENT)


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
