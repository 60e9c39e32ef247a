"""Twenty planted pieces of personal data, and the search for them in whatever was written, raw or encoded."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, quote_plus


@dataclass(frozen=True)
class Canary:
    """One piece: what it is, its ``value``, which nothing else in the world looks like, and a sentence around it."""

    kind: str
    value: str
    around: str = "Please write {} into the file of the complaint"

    @property
    def text(self) -> str:
        """The sentence with the value in it."""
        return self.around.format(self.value)

    @property
    def answer(self) -> str:
        """As a label or an answer: a name or a street without a word around it is nothing that a detector could know."""
        return self.text if self.kind in {"person", "street"} else self.value

    @cached_property
    def forms(self) -> tuple[bytes, ...]:
        """The value in lower case as texts, JSON, HTML and addresses write it, and in hexadecimal."""
        plain = self.value
        escaped = (json.dumps(plain)[1:-1], html.escape(plain), quote(plain), quote(plain, safe=""), quote_plus(plain))
        texts = {form.lower().encode() for form in (plain, *escaped)}
        return (*sorted(texts), plain.encode().hex().encode())

    @cached_property
    def in_base64(self) -> tuple[bytes, ...]:
        """What of the value is the same in base64 at each of the three places where it may begin."""
        found = []
        for before in range(3):
            coded = base64.b64encode(b"\0" * before + self.value.encode()).rstrip(b"=")
            found.append(coded[-(-before * 8 // 6) : len(coded) - 1])
        return tuple(found)

    @cached_property
    def digits(self) -> bytes:
        """Its letters and digits without separators, for numbers of nine digits or more; empty for anything else."""
        bare = re.sub(r"[^0-9A-Za-z]", "", self.value)
        return bare.lower().encode() if sum(letter.isdigit() for letter in bare) >= 9 and self.kind != "ip" else b""


CANARIES = (
    Canary("e-mail", "zdenka.quill@kestrelmoor.net"),
    Canary("e-mail", "o'hara+tips@brindlewick.co.uk", "Mail {} when it is done"),
    Canary("e-mail", "MARIGOLD_77@ThistleDown.org", "Reply to {} please"),
    Canary("card", "4539 1488 0343 6467", "I paid with card {} yesterday"),
    Canary("card", "5425233430109903", "The credit card number is {} and it was charged twice"),
    Canary("IBAN", "DE89 3704 0044 0532 0130 00", "Refund to IBAN {} today"),
    Canary("IBAN", "GB29NWBK60161331926819", "My bank account is {} in London"),
    Canary("phone", "+1 (415) 867-5309", "Call me on my phone {} tonight"),
    Canary("phone", "+44 20 7946 0958", "My telephone number is {} in the morning"),
    Canary("ip", "198.51.100.237", "The attack came from {} at night"),
    Canary("ip", "2001:470:1f0b:9c4::77", "The server address is {} now"),
    Canary("person", "Zdenka Quillfeather", "My name is {} and I complain"),
    Canary("person", "Margaret Thornbury", "Mrs {} wrote to the editor"),
    Canary("person", "Ignatius Bellweather", "Dr {} said that the ward is full"),
    Canary("credentials", "https://svcuser:hunter2zz@intranet.brindlewick.net/reports", "See {} for the numbers"),
    Canary("credentials", "postgres://quill:s3cr3tmoor@db.kestrelmoor.net/books", "It runs on {} now"),
    Canary("ssn", "536-90-4399", "My social security number is {} for the form"),
    Canary("ssn", "219-09-9871", "SSN {} belongs to my father"),
    Canary("street", "742 Thornbury Avenue", "She lives at {} since May"),
    Canary("street", "19 Quillfeather Lane", "Send it to {} please"),
)


@dataclass
class Search:
    """Looks through pieces of writing, place by place, and remembers how much it looked at and what it found."""

    canaries: tuple[Canary, ...] = CANARIES
    looked: dict[str, int] = field(default_factory=dict)
    hits: list[tuple[str, str, str]] = field(default_factory=list)  # place, item, kind of canary

    def look(self, place: str, item: str, content: str | bytes) -> None:
        """Search one piece (a row, a file, a line); hits are kept without the value."""
        self.looked[place] = self.looked.get(place, 0) + 1
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        for canary in found_in(data, self.canaries):
            self.hits.append((place, item, f"{canary.kind} #{self.canaries.index(canary)}"))

    def files(self, place: str, folder: Path, *, but: Iterable[str] = ()) -> None:
        """Search every file below a folder, and their names; ``but`` names parts of paths that are left out."""
        left_out = tuple(but)
        self.looked.setdefault(place, 0)
        for path in sorted(folder.rglob("*")):
            inside = str(path.relative_to(folder))
            if path.is_file() and not any(part in inside for part in left_out):
                try:
                    self.look(place, inside, inside.encode() + b"\n" + path.read_bytes())
                except OSError:  # a log that was rotated away, a socket
                    continue

    def table(self) -> str:
        """Places with what was searched and what was found, then each hit."""
        names = sorted({*self.looked, *(place for place, _, _ in self.hits)})
        width = max((len(name) for name in names), default=5)
        lines = [f"{'place':<{width}}  searched  hits"]
        for name in names:
            hits = sum(place == name for place, _, _ in self.hits)
            lines.append(f"{name:<{width}}  {self.looked.get(name, 0):>8}  {hits:>4}")
        return "\n".join([*lines, *(f"HIT {kind} in {place}: {item[:120]}" for place, item, kind in self.hits)])


_BETWEEN = re.compile(rb"(?<=[0-9a-z])[ \-.()/]{1,3}(?=[0-9a-z+(])")


def found_in(data: bytes, canaries: tuple[Canary, ...] = CANARIES) -> list[Canary]:
    """The canaries that a piece of writing holds, in whatever case and common encoding."""
    lower = data.lower()
    bare = _BETWEEN.sub(b"", lower) if any(letter in lower for letter in b"0123456789") else b""
    found = []
    for canary in canaries:
        if (
            any(form in lower for form in canary.forms)
            or any(form in data for form in canary.in_base64)
            or (canary.digits and canary.digits in bare)
        ):
            found.append(canary)
    return found


def tables_as(url: str, schemas: tuple[str, ...] = ("perennial", "public")) -> Iterator[tuple[str, int, str]]:
    """Every row of every table and view that this role may read, as (table, number of the row, its text); what it may not read is
    left out, column by column."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True) as connection:
        columns = connection.execute(
            "SELECT table_schema, table_name, array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns "
            "WHERE table_schema = ANY(%s) AND has_column_privilege(format('%%I.%%I', table_schema, table_name), column_name, 'SELECT') "
            "GROUP BY 1, 2 ORDER BY 1, 2",
            (list(schemas),),
        ).fetchall()
        for schema, table, names in columns:
            chosen = sql.SQL(", ").join(sql.Identifier(name) for name in names)
            rows = connection.execute(
                sql.SQL("SELECT {} FROM {}.{}").format(chosen, sql.Identifier(schema), sql.Identifier(table))
            )
            for number, row in enumerate(rows):
                yield f"{schema}.{table}", number, "\x1f".join(_plain(value) for value in row)


def _plain(value: object) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode("utf-8", "replace")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
