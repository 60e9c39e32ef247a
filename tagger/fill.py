"""Fills the templates: sentences of which it is known where names stand. Pure but for the files beside it."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
FILES = ("templates.txt", "names.txt", "slots.txt")
_SLOT = re.compile(r"\{(\w+)\}")
_STEMS = [
    "ba",
    "be",
    "bo",
    "bra",
    "bre",
    "da",
    "de",
    "dra",
    "el",
    "fa",
    "fer",
    "ga",
    "gra",
    "ha",
    "hel",
    "ja",
    "ka",
    "kar",
    "kre",
    "la",
    "le",
    "lo",
    "ma",
    "mar",
    "mi",
    "na",
    "ne",
    "no",
    "o",
    "pa",
    "pe",
    "ra",
    "re",
    "ro",
    "sa",
    "se",
    "sha",
    "sko",
    "ta",
    "te",
    "to",
    "tra",
    "u",
    "va",
    "ve",
    "vi",
    "wa",
    "ya",
    "za",
]
_MIDDLES = [
    "b",
    "d",
    "g",
    "k",
    "l",
    "ll",
    "lm",
    "ln",
    "lt",
    "m",
    "mb",
    "n",
    "nd",
    "ng",
    "nn",
    "nt",
    "r",
    "rd",
    "rg",
    "rk",
    "rm",
    "rn",
    "rs",
    "rt",
    "s",
    "sk",
    "st",
    "t",
    "tr",
    "tz",
    "v",
    "z",
]
_ENDS = [
    "son",
    "sen",
    "sson",
    "ova",
    "ov",
    "ev",
    "ić",
    "ski",
    "ska",
    "wicz",
    "enko",
    "uk",
    "nen",
    "mann",
    "berg",
    "stein",
    "feld",
    "haus",
    "bach",
    "meyer",
    "ez",
    "es",
    "o",
    "i",
    "ini",
    "etti",
    "elli",
    "ello",
    "aux",
    "ette",
    "eau",
    "ard",
    "oğlu",
    "ian",
    "yan",
    "dze",
    "vili",
    "opoulos",
    "akis",
    "idis",
    "escu",
    "u",
    "wala",
    "kar",
    "bhai",
    "singh",
    "moto",
    "mura",
    "shima",
    "yama",
    "saki",
    "ng",
    "en",
    "an",
    "in",
    "er",
]
_STREETS = [
    "Street",
    "Avenue",
    "Road",
    "Lane",
    "Drive",
    "Court",
    "St.",
    "Rd.",
    "Blvd",
    "Way",
    "Place",
    "Straße",
    "Terrace",
]
_RELATIONS = [
    "wife",
    "husband",
    "son",
    "daughter",
    "brother",
    "sister",
    "mother",
    "father",
    "neighbour",
    "uncle",
    "aunt",
    "friend",
    "boss",
    "colleague",
]
_FIRMS = (
    " Inc", " Ltd", " & Sons", " GmbH", " Group", " Holdings", " Corp.", " Bank", " Partners", " LLC", " Brothers",
)  # fmt: skip
_TOWNS = ("burg", "ville", "ton", "stad", "grad", "ham", "o", "a", "ia", "polis", "dorf", "wick")
_DOMAINS = ("example.com", "mail.example", "corp.example")
_ADDRESSES = (
    "{} {} {}", "{0} {1} {2}, Apt. 4", "{1} {2} {0}", "{1}weg {0}", "Rua {1} {0}", "Calle {1} {0}", "rue {1} {0}", "{1}gatan {0}",
    "Via {1} {0}",
)  # fmt: skip


@dataclass(slots=True)
class Sentence:
    """A text and where names stand in it."""

    text: str = ""
    names: list[tuple[int, int]] = field(default_factory=list)

    def add(self, text: str, *, name: bool = False) -> None:
        """Append, noting a name."""
        if name:
            self.names.append((len(self.text), len(self.text) + len(text)))
        self.text += text


def digest() -> str:
    """sha256 of what the sentences are made from."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()


def _lines(name: str) -> list[str]:
    return [
        line for line in (HERE / name).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]


class Filler:
    """Draws sentences; the same seed gives the same ones."""

    def __init__(self, seed: int, lists: dict[str, list[str]]) -> None:
        self._draw = random.Random(seed)
        self._templates = _lines("templates.txt")
        self._slots = {key: value.split(" | ") for key, value in (line.split(": ", 1) for line in _lines("slots.txt"))}
        self._cultures = []
        for line in _lines("names.txt"):
            given, family = line.split(": ", 1)[1].split(" | ")
            self._cultures.append((given.split(), family.split()))
        self._lists = lists

    def sentences(self, each: int) -> Iterator[Sentence]:
        """Every template ``each`` times, some joined with another, some in small letters or capitals."""
        for template in self._templates * each:
            sentence = Sentence()
            self._fill(sentence, template)
            if self._draw.random() < 0.3:
                sentence.add(self._draw.choice((" ", "\n", ". ", " - ")))
                self._fill(sentence, self._draw.choice(self._templates))
            yield self._cased(sentence)

    def _cased(self, sentence: Sentence) -> Sentence:
        chance = self._draw.random()
        changed = sentence.text.lower() if chance < 0.05 else sentence.text.upper() if chance < 0.08 else sentence.text
        return Sentence(changed, sentence.names) if len(changed) == len(sentence.text) else sentence

    def _fill(self, sentence: Sentence, template: str) -> None:
        place = 0
        for slot in _SLOT.finditer(template):
            sentence.add(template[place : slot.start()])
            place = slot.end()
            kind = slot.group(1)
            if kind in ("N", "F", "L"):
                # a masked name, as one that is redacted already looks
                if self._draw.random() < 0.04:
                    sentence.add("someone")
                else:
                    sentence.add(self._name(kind), name=True)
            elif kind in ("f", "l"):
                sentence.add(self._name(kind.upper()))
            elif kind == "T":
                sentence.add(self._draw.choice(self._slots["title"]))
            elif kind == "I":
                sentence.add(self._initials(), name=True)
            else:
                sentence.add(self._other(kind))
        sentence.add(template[place:])

    def _initials(self) -> str:
        return self._draw.choice(("{}.", "{}.{}.", "{}. {}.")).format(
            *(self._draw.choice("ABCDEFGHJKLMNPRSTVWZ") for _ in "ab")
        )

    def _given(self, culture: tuple[list[str], list[str]]) -> str:
        chance = self._draw.random()
        if chance < 0.3:
            return self._draw.choice(self._lists["first"]).title()
        if chance < 0.36:
            return self._draw.choice(self._lists["ambiguous"]).title()
        return (
            self._invented(("a", "o", "e", "us", "in", "el", "is", "ette", "ia"))
            if chance < 0.44
            else self._draw.choice(culture[0])
        )

    def _family(self, culture: tuple[list[str], list[str]]) -> str:
        chance = self._draw.random()
        if chance < 0.2:
            return self._draw.choice(self._lists["last"]).title()
        if chance < 0.4:
            return self._invented(_ENDS)
        name = self._draw.choice(culture[1])
        return f"{name}-{self._draw.choice(culture[1])}" if self._draw.random() < 0.04 else name

    def _invented(self, ends: tuple[str, ...] | list[str]) -> str:
        draw = self._draw
        middle = "".join(draw.choice(_MIDDLES) + draw.choice("aeiou") for _ in range(draw.choice((0, 0, 1))))
        return (draw.choice(_STEMS) + middle + draw.choice(_MIDDLES) + draw.choice(ends)).capitalize()

    def _name(self, kind: str) -> str:
        culture = self._draw.choice(self._cultures)
        if kind == "F":
            return self._given(culture)
        if kind == "L":
            return self._family(culture)
        first, last, chance = self._given(culture), self._family(culture), self._draw.random()
        forms = (
            (0.62, f"{first} {last}"), (0.70, f"{first} {self._draw.choice('ABCDEFGJKLMRSTW')}. {last}"),
            (0.74, f"{first} {self._draw.choice('ABCDEFGJKLMRSTW')} {last}"), (0.80, f"{self._initials()} {last}"),
            (0.85, f"{first} {self._given(culture)} {last}"), (0.88, f"{first} {last} {self._family(culture)}"),
            (0.91, f"{first} {self._draw.choice(('van', 'van der', 'de', 'de la', 'von', 'al', 'bin', 'da', 'di', 'Mc', 'Le'))} {last}"),
            (0.95, first),
            (0.97, f"{first.upper()} {last.upper()}"), (0.98, f"{first} {last.upper()}"), (1.01, f"{first.lower()} {last.lower()}"),
        )  # fmt: skip
        return next(form for most, form in forms if chance < most)

    def _other(self, kind: str) -> str:
        draw = self._draw
        if kind == "C":
            return draw.choice(self._slots["common"])
        if kind == "H":
            return self._headline()
        if kind == "addr":
            return self._address()
        if kind == "org" and draw.random() < 0.15:
            culture = draw.choice(self._cultures)
            return self._family(culture) + draw.choice(_FIRMS)
        if kind == "place" and draw.random() < 0.1:
            return draw.choice(("Lake ", "Fort ", "San ", "Mount ", "New ", "Port ", "", "", "", "")) + self._invented(
                _TOWNS
            )
        return self._made(kind) or draw.choice(self._slots[kind])

    def _headline(self) -> str:
        draw = self._draw
        words = [draw.choice(self._slots["common"]) for _ in range(draw.randint(3, 7))]
        for _ in range(draw.randint(0, 2)):
            words[draw.randrange(len(words))] = draw.choice(
                self._slots[draw.choice(("org", "place", "product", "people"))]
            )
        return " ".join(words)

    def _address(self) -> str:
        draw = self._draw
        culture = draw.choice(self._cultures)
        names = (
            self._family(culture), draw.choice(self._slots["common"]), draw.choice(self._slots["place"]), draw.choice(culture[1]),
        )  # fmt: skip
        street = draw.choice(names)
        return draw.choice(_ADDRESSES).format(draw.randint(1, 9999), street, draw.choice(_STREETS))

    def _made(self, kind: str) -> str:
        """A value that is drawn and stands in no list; empty for another slot."""
        draw = self._draw
        makers = {
            "n": lambda: str(draw.choice((draw.randint(2, 99), draw.randint(100, 9999)))),
            "d": lambda: str(draw.randint(1, 9)),
            "year": lambda: str(draw.randint(1890, 2029)),
            "phone": lambda: f"+{draw.randint(1, 99)} {draw.randint(100, 999)} {draw.randint(10**5, 10**6)}",
            "mail": lambda: f"{self._name('F').lower()}.{self._name('L').lower()}@{draw.choice(_DOMAINS)}",
            "iban": lambda: f"GB{draw.randint(10, 99)}BANK{draw.randint(10**13, 10**14 - 1)}",
            "card": lambda: f"4{draw.randint(10**14, 10**15 - 1)}",
            "rel": lambda: draw.choice(_RELATIONS),
        }
        return makers[kind]() if kind in makers else ""
