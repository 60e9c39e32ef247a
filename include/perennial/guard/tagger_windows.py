"""What of a text the tagger looks at: pieces of a sentence or two, and of these only such as could hold a name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from perennial.guard.gazetteer import Gazetteer, plain
from perennial.guard.surrogates import MASK, mask_surrogates
from perennial.guard.tagger_marks import TITLES

Window = tuple[int, int]
STAND_IN = " someone "  # what the tagger reads where a stand-in is; it was trained to see no name there

_MASKED = re.compile(f"[ \t]*{MASK}+(?:[ \t]*{MASK}+)*[ \t]*")
_CUT = re.compile(r"[.!?]+[\"'”’)\]]*\s+|\n")
_ABBREVIATED = re.compile(r"(?:\b[^\W\d_]|\b(?:Mr|Mrs|Ms|Dr|Prof|Rev|Sgt|Lt|Col|Gen|Sen|Gov|St|Jr|Sr|vs|No))\.\s*\Z")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LEAST, _MOST = 40, 240  # characters of a window


class View:
    """A text as the tagger reads it: every stand-in, of any length and however it is set apart, is the same word.

    So a text is read alike while it is redacted and when it is redacted again.
    """

    def __init__(self, text: str) -> None:
        masked = mask_surrogates(text)
        self.text = masked
        self._moved: list[tuple[int, int]] = []  # (place in the view, place in the text) behind each stand-in
        if MASK in masked:
            parts: list[str] = []
            place = length = 0
            for found in _MASKED.finditer(masked):
                parts += (masked[place : found.start()], STAND_IN)
                length += found.start() - place + len(STAND_IN)
                place = found.end()
                self._moved.append((length, place))
            self.text = "".join((*parts, masked[place:]))

    def original(self, places: list[Window]) -> list[Window]:
        """Where words of the view (in order, none a stand-in) are in the text."""
        result = []
        number = shift = 0
        for start, end in places:
            while number < len(self._moved) and self._moved[number][0] <= start:
                shift = self._moved[number][1] - self._moved[number][0]
                number += 1
            result.append((start + shift, end + shift))
        return result


def windows(text: str) -> Iterator[Window]:
    """Pieces of 40 to 240 characters, cut where sentences or lines end, else between words.

    >>> text = "He met Dr. Jane Doe of Oslo in the old town. Then it rained, and they all went home again."
    >>> [text[start:end] for start, end in windows(text)]
    ['He met Dr. Jane Doe of Oslo in the old town.', 'Then it rained, and they all went home again.']
    """
    start = 0
    for found in _CUT.finditer(text):
        if found.end() - start < _LEAST or _ABBREVIATED.search(text, max(start, found.start() - 6), found.end()):
            continue
        yield from _short(text, start, found.end())
        start = found.end()
    yield from _short(text, start, len(text))


def _short(text: str, start: int, end: int) -> Iterator[Window]:
    """The piece, cut to 240 characters behind a comma or a blank, without blanks at its ends."""
    while end - start > _MOST:
        half, most = start + _MOST // 2, start + _MOST
        cut = max(text.rfind(mark, half, most) for mark in (", ", "; ", "\n"))
        cut = cut + 1 if cut >= 0 else text.rfind(" ", half, most)
        cut = cut if cut >= 0 else most
        yield from _short(text, start, cut)
        start = cut
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    if left < len(piece):
        yield start + left, start + len(piece.rstrip())


def candidates(text: str, lists: Gazetteer) -> Iterator[Window]:
    """Words that could be a name: with a capital and not known as none, or a given name or after a title in small letters."""
    title = False
    for found in _WORD.finditer(text):
        word = found.group()
        low = plain(word)
        none = low in lists.other
        if word[0].isupper():
            if not none and len(word) > 1:
                yield found.span()
        elif title or (low in lists.first and low not in lists.ambiguous and not none):
            yield found.span()
        title = low in TITLES
