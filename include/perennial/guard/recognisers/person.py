"""Names of people: by a tagger, and by lists and phrases.

By list: a first name with the capitalised words behind it, a known surname with a capitalised word before it, anything
capitalised behind a title ("Dr.") or a phrase such as "my name is" or "contact". Words of a name that was found are found
again alone in the same text. The tagger (``guard/tagger.py``) is asked for texts alone that hold a word which could be a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perennial.guard.gazetteer import Gazetteer, bare, gazetteer, plain
from perennial.guard.spans import Kind, Span
from perennial.guard.tagger import Scored, tagger, weights
from perennial.guard.tagger_windows import candidates

_CAPITALISED = re.compile(r"(?<![\w@.])[^\W\d_a-z][^\W\d_]+(?:['’\-][^\W\d_]+)*")
_TITLE = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Doctor|Sir|Dame|Madam|Rev|Reverend|Herr|Frau|Señora?|Monsieur|Madame)\b\.?[ \t]+"
)
_SMALL_TITLE = re.compile(r"\b(?:mr|mrs|ms|dr|prof)\b\.?[ \t]+\Z")
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
_BEFORE_PLACE = re.compile(r"\b(?:Lake|Mount|Fort|Port|San|Santa|Saint|Hurricane|Typhoon|Cyclone|Storm)[ \t]\Z")
_JOINED = re.compile(r"[.'’]?[ \t]{0,3}|-")  # between two words of one name
_EDGE = re.compile(r"\A[\W_]+|[\W_]+\Z")
SURE, UNSURE = 0.5, 0.45  # of the tagger: a name; a name that a person should look at
_MEMBER = 0.25  # a word of a name whose best word is above one of those
_PLACES = frozenset(
    ("san", "santa", "saint", "são", "santo", "fort", "port", "lake", "mount", "new", "hurricane", "typhoon", "cyclone")
)


class Person:
    """Names by tagger, list and context."""

    kind = Kind.PERSON

    def __init__(self, lists: Gazetteer) -> None:
        self._lists = lists
        self.revision = weights()[:8]  # part of the redactor's version: another head makes rows be redacted again
        self._first = lists.first - lists.ambiguous - lists.other
        self._maybe = lists.ambiguous | (lists.first & lists.other)
        self._last = lists.last
        self._other = lists.other

    def find(self, text: str) -> list[Span]:
        """Spans of names. Raises GuardUnavailable when the tagger cannot be loaded and a word could be a name."""
        if next(candidates(text, self._lists), None) is None:
            return []
        scored = tagger().scores(text)
        words = list(_CAPITALISED.finditer(text))
        announced = {match.end() for pattern in (_TITLE, _PHRASE) for match in pattern.finditer(text)}
        found = [
            # a word that is also a name, with nothing but the tagger for it: a person should look
            Span(span.start, span.end, span.kind, span.sure and plain(span.of(text)) not in self._lists.ambiguous)
            for span in names(scored, text)
            if not _BEFORE_PLACE.search(text, max(0, span.start - 12), span.start)
            and (
                span.start in announced
                or _SMALL_TITLE.search(text, max(0, span.start - 8), span.start)
                or self._written_as_name(span.of(text))
            )
        ]
        found += self._listed(words, text)
        return found + self._again(words, [span for span in found if span.sure], text)

    def _written_as_name(self, value: str) -> bool:
        """Whether a find has a word written like a name, or in small letters begins with a given name of the lists. A word without a
        capital, or a single one of capitals alone, that no list knows is misspelt or shouted nearly always."""
        shown = value.split()
        words = [plain(word) for word in shown]
        if value == value.lower():
            return len(words) > 1 and len(words[0]) > 3 and words[0] in self._first and words[0] != words[1]
        large = sum(word.isupper() and len(word) > 1 for word in shown)
        return any(
            word in self._first
            or word in self._last
            or (word not in self._other and (large > 1 or not there.isupper()))
            for there, word in zip(shown, words, strict=True)
            if there[:1].isupper()
        )

    def _listed(self, words: list[re.Match[str]], text: str) -> list[Span]:
        """By lists and phrases; runs over the words with a capital, each looked at once."""
        if not words:
            return []
        groups = list(self._groups(text, words))
        announced = {found.end() for pattern in (_TITLE, _PHRASE) for found in pattern.finditer(text)}
        return [span for group in groups if (span := self._name(group, announced, text)) is not None]

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
        low = plain(word.group())
        return low in self._other and low not in _PLACES

    def _taken(self, words: list[re.Match[str]], announced: bool) -> int:
        """How many words from the first on are a name; 0 when they are none."""
        low = [plain(word.group()) for word in words]
        count = 0
        while count < len(low) and low[count] not in self._other and len(low[count]) > 1:
            count += 1
        if count < len(low) and count and not announced and low[count] in self._other:
            return 0  # Madison Square, Chelsea Football Club
        if announced:
            return count
        if count < 2:
            return count if count and low[0] in self._first and words[0].group().istitle() else 0
        if low[0] in self._first or (low[0] in self._maybe and low[1] in self._last):
            return count
        return count if count == 2 and low[1] in self._last and not words[0].group().isupper() else 0

    def _again(self, words: list[re.Match[str]], found: list[Span], text: str) -> list[Span]:
        """Later and earlier mentions of a surname, or of a first name, that belongs to a full name of this text."""
        parts = {
            plain(part)
            for span in found
            for part in re.split(r"[ \t]+", span.of(text))
            if len(part) > 2 and part[0].isupper()
        } - self._other  # fmt: skip
        if not parts:
            return []
        taken = {place for span in found for place in range(span.start, span.end)}
        return [
            Span(word.start(), word.start() + len(bare(word.group())), self.kind)
            for word in words
            if word.start() not in taken and plain(word.group()) in parts
        ]


def names(scored: list[Scored], text: str) -> list[Span]:
    """Runs of words with a score of ``_MEMBER`` or more whose best is at least ``UNSURE``, as spans.

    >>> names([(0, 4, 0.9), (5, 8, 0.4), (12, 16, 0.1)], "Jane Doe and Oslo")
    [Span(start=0, end=8, kind=<Kind.PERSON: 'PERSON'>)]
    """
    runs: list[Scored] = []
    for start, end, score in scored:
        if score < _MEMBER:
            continue
        if runs and _JOINED.fullmatch(text, runs[-1][1], start):
            runs[-1] = (runs[-1][0], end, max(runs[-1][2], score))
        else:
            runs.append((start, end, score))
    found = []
    for start, end, score in runs:
        # no name begins or ends with punctuation
        edges = _EDGE.sub(lambda edge: "\n" * len(edge.group()), text[start:end])
        inner = edges.strip("\n")
        if score >= UNSURE and len(inner) > 1:
            left = start + edges.index(inner)
            found.append(Span(left, left + len(inner), Kind.PERSON, score >= SURE))
    return found


def build() -> Person:
    """The recogniser of names."""
    return Person(gazetteer())
