"""A text on its way through redaction: what is left of it, and the stand-ins that are set already."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perennial.guard.spans import Span
from perennial.guard.surrogates import MASK, mask_surrogates, surrogate

_RUN = re.compile(f"{MASK}+")


@dataclass(frozen=True, slots=True)
class Draft:
    """``rest`` is the text with one mask character for each of ``pieces``, which are final.

    Detectors look at ``rest`` alone. It only gets shorter, so a text cannot grow, nor be looked at, without end.
    """

    rest: str
    pieces: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Draft:
        """Our own stand-ins in a foreign text (it was redacted before) are pieces from the start.

        >>> Draft.of("write to user-00c0ffee@redacted.example").pieces
        ('user-00c0ffee@redacted.example',)
        """
        masked = mask_surrogates(text)
        return cls(_RUN.sub(MASK, masked), tuple(text[run.start() : run.end()] for run in _RUN.finditer(masked)))

    def without(self, spans: list[Span], key: bytes) -> Draft:
        """Each span (of ``rest``, in order, without overlaps) becomes a stand-in."""
        rest: list[str] = []
        pieces: list[str] = []
        known: dict[tuple[str, str], str] = {}
        place = used = 0
        for span in spans:
            before, value = self.rest[place : span.start], span.of(self.rest)
            kept = before.count(MASK)
            pieces.extend(self.pieces[used : used + kept])
            used += kept + value.count(MASK)  # a URL may have held a stand-in; it goes with the URL
            name = (span.kind.value, value)
            if name not in known:
                known[name] = surrogate(span.kind, value, key)
            pieces.append(known[name])
            rest += (before, MASK)
            place = span.end
        return Draft("".join((*rest, self.rest[place:])), (*pieces, *self.pieces[used:]))

    def text(self) -> str:
        """The whole again. A stand-in is set apart from letters and digits beside it, or it could not be told any more."""
        first, *others = self.rest.split(MASK)
        result = [first]
        last = first[-1:]
        for piece, after in zip(self.pieces, others, strict=True):
            foreign = not piece.strip(MASK)  # the text had a mask character of its own: not ours to set apart
            if not foreign and _joins(last):
                result.append(" ")
            result.append(piece)
            if not foreign and _joins(after[:1]):
                result.append(" ")
            result.append(after)
            last = after[-1:] or piece[-1:]
        return "".join(result)


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_"
