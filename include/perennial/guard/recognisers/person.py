"""Names of people, by lists and by the words around them: what can be done without a model.

A first name of the list, with the capitalised words behind it, a known surname with a capitalised word before it, anything
capitalised behind a title ("Dr.") or a phrase such as "my name is" or "contact". Surnames of a name that was found are found
again alone in the same text. Names in small letters, and rare names without context, are beyond it; a tagger that is trained
for them takes this file's place behind the same protocol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from perennial.guard.spans import Kind, Span

_CAPITALISED = re.compile(r"(?<![\w@.])[^\W\d_a-z][^\W\d_]+(?:['’\-][^\W\d_]+)*")
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Doctor|Sir|Dame|Madam|Rev|Reverend|Herr|Frau|Señora?|Monsieur|Madame)\b\.?[ \t]+"
)
_PHRASE = re.compile(
    r"\b(?:[Mm]y name is|[Nn]ame is|[Nn]ame:|[Cc]all me|calls? me|I am|I'm|[Cc]ontact|[Dd]ear|[Hh]i|[Hh]ello|[Hh]ey|"
    r"[Ss]incerely,?|[Rr]egards,?|[Ss]igned,?|[Ww]ritten by|[Dd]irected by:?|[Ss]tarring|[Rr]eported by|[Ii]nterview with|"
    r"[Ss]poke (?:to|with)|"
    r"[Pp]atient|[Cc]ustomer|[Cc]lient|[Aa]ttn:?|[Aa]ttention:?|[Mm]aiden name is|[Nn]amed (?:him|her|them)|lives with|[Bb]orn to|"
    r"neighbou?r|resident|witness|spokes(?:man|woman|person)|reporter|nurse|teacher|owner|founder|aunt|uncle|"
    r"husband|wife|daughter|son|brother|sister|friend|colleague)[ \t]+"
)
_FOLLOWED = re.compile(
    r"[ \t]+(?:[A-Z]\.[ \t]*|(?:de la|de|da|di|del|della|dos|van der|van den|van|von|bin|ibn|al|el|la|le|ter|ten)[ \t]+){0,2}"
)
_MOST_WORDS = 3
_PLACES = frozenset(
    ("san", "santa", "saint", "são", "santo", "fort", "port", "lake", "mount", "new", "hurricane", "typhoon", "cyclone")
)


@dataclass(frozen=True, slots=True)
class _Lists:
    first: frozenset[str]
    ambiguous: frozenset[str]
    last: frozenset[str]
    other: frozenset[str]


@lru_cache(maxsize=1)
def _lists() -> _Lists:
    return _Lists(*(_read(name) for name in ("first", "ambiguous", "last", "other")))


def _read(name: str) -> frozenset[str]:
    lines = files("perennial.guard").joinpath("names", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


class Person:
    """Names by list and context."""

    kind = Kind.PERSON

    def __init__(self, lists: _Lists) -> None:
        self._first = lists.first - lists.ambiguous - lists.other
        self._maybe = lists.ambiguous | (lists.first & lists.other)
        self._last = lists.last
        self._other = lists.other

    def find(self, text: str) -> list[Span]:
        """Spans of names; runs over the words with a capital, each looked at once."""
        words = list(_CAPITALISED.finditer(text))
        if not words:
            return []
        groups = list(self._groups(text, words))
        announced = {found.end() for pattern in (_TITLE, _PHRASE) for found in pattern.finditer(text)}
        found = [span for group in groups if (span := self._name(group, announced, text)) is not None]
        return found + self._again(words, found, text)

    def _groups(self, text: str, words: list[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
        """Capitalised words that follow one another with blanks, initials or particles between."""
        group = [words[0]]
        for word in words[1:]:
            between = _FOLLOWED.match(text, group[-1].end())
            if between and between.end() == word.start():
                group.append(word)
            else:
                yield group
                group = [word]
        yield group

    def _name(self, group: list[re.Match[str]], announced: set[int], text: str) -> Span | None:
        """The first run of words of a group that reads as a name."""
        for place, word in enumerate(group):
            taken = self._taken(group[place : place + _MOST_WORDS], word.start() in announced)
            if taken == 1 and place and not self._may_precede(group[place - 1]):
                continue  # San Diego, Lake Charles, Unilever Jane
            if taken:
                return Span(word.start(), group[place + taken - 1].end(), self.kind)
        return None

    def _may_precede(self, word: re.Match[str]) -> bool:
        """Whether a capitalised word leaves the one behind it a first name: a sentence start or a title, no place."""
        plain = _plain(word.group())
        return plain in self._other and plain not in _PLACES

    def _taken(self, words: list[re.Match[str]], announced: bool) -> int:
        """How many words from the first on are a name; 0 when they are none."""
        plain = [_plain(word.group()) for word in words]
        count = 0
        while count < len(plain) and plain[count] not in self._other and len(plain[count]) > 1:
            count += 1
        if count < len(plain) and count and not announced and plain[count] in self._other:
            return 0  # Madison Square, Chelsea Football Club
        if announced:
            return count
        if count < 2:
            return count if count and plain[0] in self._first and words[0].group().istitle() else 0
        if plain[0] in self._first or (plain[0] in self._maybe and plain[1] in self._last):
            return count
        return count if count == 2 and plain[1] in self._last and not words[0].group().isupper() else 0

    def _again(self, words: list[re.Match[str]], found: list[Span], text: str) -> list[Span]:
        """Later and earlier mentions of a surname, or of a first name, that belongs to a full name of this text."""
        parts = {
            _plain(part)
            for span in found
            for part in re.split(r"[ \t]+", span.of(text))
            if len(part) > 2 and part[0].isupper()
        } - self._other  # fmt: skip
        if not parts:
            return []
        taken = {place for span in found for place in range(span.start, span.end)}
        return [
            Span(word.start(), word.start() + len(_bare(word.group())), self.kind)
            for word in words
            if word.start() not in taken and _plain(word.group()) in parts
        ]


def build() -> Person:
    """The recogniser of names."""
    return Person(_lists())


def _bare(word: str) -> str:
    """Without the genitive."""
    return word[:-2] if word.endswith(("'s", "’s")) else word


def _plain(word: str) -> str:
    return _bare(word).casefold()
