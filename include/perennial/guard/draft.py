"""A text on its way through redaction: what is left of it, and the stand-ins that are set already."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perennial.guard.spans import Kind, Span
from perennial.guard.surrogates import MASK, mask_surrogates, surrogate

_RUN = re.compile(f"{MASK}+")


@dataclass(frozen=True, slots=True)
class Draft:
    """``rest`` is the text with one mask character for each of ``pieces``, which are final.

    Detectors look at ``rest`` alone. It only gets shorter, so a text cannot grow, nor be looked at, without end. ``asked`` says of
    each piece which words of which kind it stands for when the detector was not sure of them.
    """

    rest: str
    pieces: tuple[str, ...]
    asked: tuple[tuple[Kind, str] | None, ...]

    @classmethod
    def of(cls, text: str) -> Draft:
        """Our own stand-ins in a foreign text (it was redacted before) are pieces from the start.

        >>> Draft.of("write to user-00c0ffee@redacted.example").pieces
        ('user-00c0ffee@redacted.example',)
        """
        masked = mask_surrogates(text)
        pieces = tuple(text[run.start() : run.end()] for run in _RUN.finditer(masked))
        return cls(_RUN.sub(MASK, masked), pieces, (None,) * len(pieces))

    def without(self, spans: list[Span], key: bytes) -> Draft:
        """Each span (of ``rest``, in order, without overlaps) becomes a stand-in."""
        rest: list[str] = []
        pieces: list[str] = []
        asked: list[tuple[Kind, str] | None] = []
        known: dict[tuple[str, str], str] = {}
        place = used = 0
        for span in spans:
            before, value = self.rest[place : span.start], span.of(self.rest)
            kept = before.count(MASK)
            pieces.extend(self.pieces[used : used + kept])
            asked.extend(self.asked[used : used + kept])
            used += kept + value.count(MASK)  # a URL may have held a stand-in; it goes with the URL
            name = (span.kind.value, value)
            if name not in known:
                known[name] = surrogate(span.kind, value, key)
            pieces.append(known[name])
            asked.append(None if span.sure or MASK in value else (span.kind, value))
            rest += (before, MASK)
            place = span.end
        return Draft("".join((*rest, self.rest[place:])), (*pieces, *self.pieces[used:]), (*asked, *self.asked[used:]))

    def text(self) -> str:
        """The whole again. A stand-in is set apart from letters and digits beside it, or it could not be told any more."""
        return self.placed()[0]

    def placed(self) -> tuple[str, list[tuple[int, int]]]:
        """The whole again, as ``text``, and where in it each piece stands."""
        first, *others = self.rest.split(MASK)
        result, length = [first], len(first)
        places: list[tuple[int, int]] = []
        last = first[-1:]
        for piece, after in zip(self.pieces, others, strict=True):
            foreign = not piece.strip(MASK)  # the text had a mask character of its own: not ours to set apart
            left = " " if not foreign and _joins(last) else ""
            right = " " if not foreign and _joins(after[:1]) else ""
            places.append((length + len(left), length + len(left) + len(piece)))
            result += (left, piece, right, after)
            length += len(left) + len(piece) + len(right) + len(after)
            last = after[-1:] or piece[-1:]
        return "".join(result), places


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_"
