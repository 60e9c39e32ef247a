"""A first name that is also a common word, alone, where only a person can say which it is: never sure.

"Grace said" may be a woman or the virtue, "Mark told" a man or a brand. A capitalised word of the list of such names counts when it
stands alone in front of a verb of speech or behind one that takes a person, and its find is unsure: it is replaced, and a person may
let it stand. Names that the other recognisers are sure of win where they overlap.
"""

from __future__ import annotations

import re
from importlib.resources import files

from perennial.guard.spans import Kind, Span

_SPEAKS = (
    r"(?:said|says|told|tells|asked|asks|replied|replies|wrote|writes|added|adds|explained|explains|recalled|recalls)"
)
_HEARS = r"(?:told|tells|asked|asks|thanked|thanks|emailed|messaged|phoned|texted|met|meets)"
_WORD = r"[A-Z][a-z]+"
_ALONE = re.compile(
    rf"(?<![\w@.'’-])(?<![A-Z]\w[ \t])(?P<first>{_WORD})(?=[ \t]{_SPEAKS}\b)"
    rf"|\b{_HEARS}[ \t](?P<second>{_WORD})(?![\w'’-])(?![ \t][A-Z])"
)
# Places, firms and clubs speak in the news all the time; whose name one of them is stays to the other recognisers.
_SPEAKERS = frozenset(
    (
        "asia", "austin", "barclay", "brooklyn", "carolina", "chad", "charlotte", "chase", "chelsea", "china", "dakota", "dallas", "dell",
        "florence", "ford", "georgia", "india", "israel", "jersey", "jordan", "kent", "lincoln", "london", "madison", "milan", "paris",
        "phoenix", "santiago", "victoria", "virginia", "washington",
    )
)  # fmt: skip
_BEFORE = re.compile(r"[A-Z]\w*[ \t]+$")  # the last of several capitalised words is no name alone


class LoneName:
    """Names that are words, beside a verb that people do."""

    kind = Kind.PERSON

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find(self, text: str) -> list[Span]:
        """Spans that nobody can be sure of."""
        found = []
        for match in _ALONE.finditer(text):
            group = "first" if match["first"] else "second"
            start, end = match.span(group)
            if match[group].casefold() in self._names and not _BEFORE.search(text, max(0, start - 40), start):
                found.append(Span(start, end, self.kind, sure=False))
        return found


def build() -> LoneName:
    """The recogniser of names that are words."""
    lines = files("perennial.guard").joinpath("names", "ambiguous.txt").read_text(encoding="utf-8").splitlines()
    words = frozenset(word for line in lines if not line.startswith("#") for word in line.split())
    return LoneName(words - _SPEAKERS)
