"""Names that stand for a person: a first name of a short list and an invented surname that a check syllable tells from real words."""

from __future__ import annotations

import re

CONSONANTS, VOWELS = "bdfglmnrstvz", "aeiou"
SYLLABLES = [c + v for c in CONSONANTS for v in VOWELS]  # 60
FIRST = (
    "Alex", "Robin", "Casey", "Jamie", "Morgan", "Taylor", "Jordan", "Riley", "Avery", "Quinn", "Skyler", "Rowan", "Charlie",
    "Sasha", "Kim", "Toni",
)  # fmt: skip
SURNAME = rf"(?P<surname>Q[{VOWELS}](?:[{CONSONANTS}][{VOWELS}]){{4}})"
PERSON = re.compile(rf"(?<!\w)(?:(?:{'|'.join(FIRST)}) )?{SURNAME}(?!\w)", re.ASCII)


def surname_of(vowel: int, syllables: list[int]) -> str:
    """Q, a vowel that is not u-like in English spelling, and four syllables of which the last is a check.

    >>> surname_of(1, [0, 5, 10])
    'Qebadafara'
    """
    parts = [*syllables, _check(vowel, syllables)]
    return "Q" + VOWELS[vowel] + "".join(SYLLABLES[part] for part in parts)


def good_surname(found: re.Match[str]) -> bool:
    """Whether the check syllable of a match's ``surname`` is right."""
    word = found["surname"]
    parts = [SYLLABLES.index(word[start : start + 2]) for start in range(2, 10, 2)]
    return _check(VOWELS.index(word[1]), parts[:3]) == parts[3]


def without_names(text: str) -> str:
    """The text without the names that stand for persons.

    An encoder reads it so. An invented word has no meaning, but it moves a text's vector further than the name did that it stands
    for, and further than no name at all: a model that learned from redacted texts would not know them in the words of their sender.

    >>> without_names("Robin Qebadafara wins the cup. Qebadafara, 19, and Qatar celebrate")
    ' wins the cup. , 19, and Qatar celebrate'
    """
    return PERSON.sub(_gone, text) if "Q" in text else text


def _gone(found: re.Match[str]) -> str:
    return "" if good_surname(found) else found.group()


def _check(vowel: int, parts: list[int]) -> int:
    return (vowel + 7 * parts[0] + 11 * parts[1] + 13 * parts[2] + 29) % 60
