"""Words near a number that say what it is."""

from __future__ import annotations

import re
from collections.abc import Callable


def after_word(words: str, *, reach: int = 40) -> Callable[[str, int], bool]:
    """A test whether one of ``words`` (alternatives of a pattern) stands within ``reach`` characters before a place.

    >>> after_word("phone|call")("please call me on 12", 18)
    True
    """
    pattern = re.compile(rf"(?<![^\W\d_])(?:{words})(?![^\W\d_])", re.IGNORECASE)

    def stands_before(text: str, place: int) -> bool:
        return pattern.search(text, max(0, place - reach), place) is not None

    return stands_before


def before_word(words: str, *, reach: int = 14) -> Callable[[str, int], bool]:
    """A test whether one of ``words`` follows a place within ``reach`` characters, with no digit between.

    >>> before_word("office")("12 office", 2)
    True
    """
    pattern = re.compile(rf"[^\w]{{0,{reach}}}(?:{words})(?![^\W\d_])", re.IGNORECASE)

    def follows(text: str, place: int) -> bool:
        return pattern.match(text, place) is not None

    return follows
