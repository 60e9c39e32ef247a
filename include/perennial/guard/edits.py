"""Where a redacted text differs from the one that was sent, so that labels on parts of it keep pointing at the same parts. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from perennial.domain.words import JSON

_HOLDERS = ("entities", "spans")


@dataclass(frozen=True, slots=True)
class Edit:
    """Code points ``start`` to ``end`` of the first text became ``new_start`` to ``new_end`` of the redacted one.

    ``resume`` is where the redacted text goes on: a blank may set the stand-in apart.
    """

    start: int
    end: int
    new_start: int
    new_end: int
    resume: int


def moved(start: int, end: int, edits: Sequence[Edit]) -> tuple[int, int]:
    """Where code points ``start`` to ``end`` (exclusive, at least one) of the first text are in the redacted one.

    A span that ends inside a replaced value covers the whole stand-in.

    >>> moved(8, 11, [Edit(0, 4, 0, 10, 10)]), moved(2, 6, [Edit(0, 4, 0, 10, 10)])
    ((14, 17), (0, 12))
    """
    starts = [edit.start for edit in edits]
    first, last = (_edit_at(place, starts, edits) for place in (start, end - 1))
    new_start = start if first is None else first.new_start if start < first.end else start - first.end + first.resume
    new_end = end if last is None else last.new_end if end - 1 < last.end else end - last.end + last.resume
    return new_start, new_end


def _edit_at(place: int, starts: Sequence[int], edits: Sequence[Edit]) -> Edit | None:
    """The last edit that begins at or before a place."""
    number = bisect_right(starts, place)
    return edits[number - 1] if number else None


def realigned(label: JSON, length: int, edits: Sequence[Edit]) -> JSON:
    """A label with its entity spans moved along with the text; ``length`` is that of the first text, in code points.

    Spans are ``[start, end, label]`` or objects with ``start`` and ``end``, in a list that is the label or stands under
    ``entities`` or ``spans``. Anything else, also a span that lies outside the first text, stays as it is.

    >>> realigned({"entities": [[8, 11, "ORG"]]}, 20, [Edit(0, 4, 0, 10, 10)])
    {'entities': [[14, 17, 'ORG']]}
    """
    if not edits:
        return label
    if isinstance(label, list):
        return [_item(item, length, edits) for item in label]
    if isinstance(label, dict):
        return {
            key: realigned(value, length, edits) if key in _HOLDERS and isinstance(value, list) else value
            for key, value in label.items()
        }
    return label


def _item(item: JSON, length: int, edits: Sequence[Edit]) -> JSON:
    if isinstance(item, dict):
        start, end = item.get("start"), item.get("end")
    elif isinstance(item, list) and len(item) >= 2:
        start, end = item[0], item[1]
    else:
        return item
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= length:
        return item
    new_start, new_end = moved(start, end, edits)
    if isinstance(item, dict):
        return {**item, "start": new_start, "end": new_end}
    return [new_start, new_end, *item[2:]]
