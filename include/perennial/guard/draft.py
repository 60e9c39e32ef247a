"""A text on its way through redaction: what is left of it, and the stand-ins that are set already."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perennial.guard.edits import Edit
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
    origins: tuple[tuple[int, int], ...]  # which code points of the first text each piece stands for
    asked: tuple[tuple[Kind, str] | None, ...]

    @classmethod
    def of(cls, text: str) -> Draft:
        """Our own stand-ins in a foreign text (it was redacted before) are pieces from the start.

        >>> Draft.of("write to user-00c0ffee@redacted.example").pieces
        ('user-00c0ffee@redacted.example',)
        """
        masked = mask_surrogates(text)
        runs = [run.span() for run in _RUN.finditer(masked)]
        pieces = tuple(text[start:end] for start, end in runs)
        return cls(_RUN.sub(MASK, masked), pieces, tuple(runs), (None,) * len(pieces))

    def without(self, spans: list[Span], key: bytes) -> Draft:
        """Each span (of ``rest``, in order, without overlaps) becomes a stand-in."""
        rest: list[str] = []
        pieces: list[str] = []
        origins: list[tuple[int, int]] = []
        asked: list[tuple[Kind, str] | None] = []
        known: dict[tuple[str, str], str] = {}
        place = used = shift = 0  # shift: from a place of rest to one of the first text
        for span in spans:
            before, value = self.rest[place : span.start], span.of(self.rest)
            kept = before.count(MASK)
            pieces.extend(self.pieces[used : used + kept])
            origins.extend(self.origins[used : used + kept])
            asked.extend(self.asked[used : used + kept])
            shift += self._wider(used, used + kept)
            used += kept
            start = span.start + shift
            shift += self._wider(used, used + value.count(MASK))  # a URL may have held a stand-in; it goes with the URL
            used += value.count(MASK)
            origins.append((start, span.end + shift))
            name = (span.kind.value, value)
            if name not in known:
                known[name] = surrogate(span.kind, value, key)
            pieces.append(known[name])
            asked.append(None if span.sure or MASK in value else (span.kind, value))
            rest += (before, MASK)
            place = span.end
        return Draft(
            "".join((*rest, self.rest[place:])), (*pieces, *self.pieces[used:]),
            (*origins, *self.origins[used:]), (*asked, *self.asked[used:]),
        )  # fmt: skip

    def _wider(self, first: int, behind: int) -> int:
        """By how much pieces are wider in the first text than their one character in ``rest``."""
        return sum(end - start - 1 for start, end in self.origins[first:behind])

    def whole(self) -> tuple[str, tuple[Edit, ...]]:
        """The text again, and what was replaced where, in order.

        A stand-in is set apart from letters and digits beside it, or it could not be told any more.
        """
        first, *others = self.rest.split(MASK)
        result, edits = [first], []
        last, length = first[-1:], len(first)
        for piece, origin, after in zip(self.pieces, self.origins, others, strict=True):
            foreign = not piece.strip(MASK)  # the text had a mask character of its own: not ours to set apart
            before = " " if not foreign and _joins(last) else ""
            behind = " " if not foreign and _joins(after[:1]) else ""
            result += (before, piece, behind, after)
            start = length + len(before)
            length = start + len(piece) + len(behind)
            edits.append(Edit(*origin, start, start + len(piece), length))
            length += len(after)
            last = after[-1:] or piece[-1:]
        return "".join(result), tuple(edits)

    def text(self) -> str:
        """The text again, without the list of what was replaced."""
        return self.whole()[0]


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_"
