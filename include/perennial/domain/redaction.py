"""What redaction leaves to a person, and the seam of its memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """One find that its detector is not sure of. The word is out of the text already; a person may let it stand.

    ``before`` and ``after`` are cut from the redacted text, ``word`` is as it was sent: a ``repr`` shows none of them. ``key`` names
    the word without telling it: a keyed digest, the same for every spelling in capitals.
    """

    kind: str
    key: str
    before: str
    word: str
    after: str

    def __repr__(self) -> str:
        return f"Doubt(kind={self.kind!r}, key={self.key!r})"


class ScanCache(Protocol):
    """Remembers, by redactor version, which texts hold no personal data: keyed digests, never a text.

    Both forms meet the laws in ``tests/contract/test_scans.py``. A cache never stops its caller's work: what it cannot say is
    looked at again.
    """

    def known(self, version: str, keys: Collection[bytes]) -> set[bytes]:
        """Those of ``keys`` that this version found nothing in."""
        ...

    def remember(self, version: str, keys: Collection[bytes]) -> None:
        """This version found nothing in them; a repeat changes nothing."""
        ...
