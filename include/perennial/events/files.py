"""Reads JSON Lines and CSV record by record; a broken line is a record with a problem, and the rest goes on."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from perennial.errors import SourceError
from perennial.events.source import RawRecord

JSON_LINES = {".jsonl", ".ndjson"}
SUFFIXES = JSON_LINES | {".csv"}
MAX_LINE = 4 * 1024 * 1024  # bytes
MAX_LINES = 1000  # of one record of a CSV file


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes; two files with the same bytes are the same part."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_records(path: Path) -> Iterator[RawRecord]:
    """The records of a ``.jsonl``, ``.ndjson`` or ``.csv`` file, with line numbers as positions.

    Raises SourceError, naming the file, when it cannot be opened or has another ending.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(f"{path.name} is neither JSON Lines nor CSV; name it .jsonl or .csv")
    try:
        with path.open("rb") as stream:
            yield from _json_lines(stream) if suffix in JSON_LINES else _csv(stream, path.name)
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read ({error.strerror}); check its owner and mode") from error


def _json_lines(stream: BinaryIO) -> Iterator[RawRecord]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE)
            yield _broken(number, b"", f"is longer than {MAX_LINE} bytes; split it")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield _parse(number, line.rstrip(b"\r\n"))


def _parse(number: int, line: bytes) -> RawRecord:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        return _broken(number, line, "is not UTF-8; save the file as UTF-8")
    except RecursionError:
        return _broken(number, line, "is nested too deeply; flatten it")
    except json.JSONDecodeError as error:
        return _broken(number, line, f"is not JSON ({error.msg} at column {error.colno}); write one object per line")
    except ValueError:
        return _broken(number, line, "holds a number that JSON does not know; send null when it is not known")
    if not isinstance(value, dict):
        return _broken(number, line, "is not an object; write one object per line")
    return RawRecord(position=number, data=value, raw=line)


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinity are no JSON")


def _csv(stream: BinaryIO, name: str) -> Iterator[RawRecord]:
    lines = _Lines(stream)
    header: list[str] | None = None
    while lines.begin():
        try:
            row = next(csv.reader(lines, strict=True))
        except csv.Error as error:
            problem = f"is not CSV ({error}); check its quotes"
            if header is None:
                raise SourceError(f"{name}: line 1, which names the fields, {problem}") from error
            # a quote that nothing closes reaches over the lines below: each of them gets a turn of its own
            number, line = lines.give_back()
            yield _broken(number, line.encode("utf-8", "surrogateescape"), problem)
            continue
        if header is None:
            header = row
        elif row:
            yield _from_row(lines.number, header, row)


class _Lines:
    """Physical lines of a CSV file for one record at a time, and again those that a broken record had swallowed."""

    def __init__(self, stream: BinaryIO) -> None:
        # undecodable bytes become surrogates, which the checks of the fields refuse one record at a time
        self._text = TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._ahead: deque[str] = deque()
        self._taken: list[str] = []
        self._size = 0  # characters of the record
        self.number = 0  # of the last line that was handed out

    def begin(self) -> bool:
        """Forget the record before; False at the end of the file."""
        self._taken, self._size = [], 0
        if not self._ahead and (line := self._read()):
            self._ahead.append(line)
        return bool(self._ahead)

    def give_back(self) -> tuple[int, str]:
        """The first line of a broken record with its number; those after it are read again."""
        self._ahead.extendleft(reversed(self._taken[1:]))
        self.number -= len(self._taken) - 1
        return self.number, self._taken[0]

    def _read(self) -> str:
        line = self._text.readline(MAX_LINE)
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(("\n", "\r")):
            rest = self._text.readline(MAX_LINE)  # of a line that is too long only the beginning is kept
        return line

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._size >= MAX_LINE or len(self._taken) >= MAX_LINES:
            raise csv.Error(f"a record of more than {MAX_LINES} lines or {MAX_LINE} characters")
        line = self._ahead.popleft() if self._ahead else self._read()
        if not line:
            raise StopIteration
        self._taken.append(line)
        self._size += len(line)
        self.number += 1
        return line


def _from_row(number: int, header: list[str], row: list[str]) -> RawRecord:
    raw = json.dumps(row).encode()
    if len(row) != len(header):
        problem = f"has {len(row)} fields and the header {len(header)}; quote fields that hold commas"
        return _broken(number, raw, problem)
    # an empty cell says nothing, so the field counts as not sent
    data: dict[str, Any] = {name.strip(): cell for name, cell in zip(header, row, strict=True) if cell != ""}
    return RawRecord(position=number, data=data, raw=raw)


def _broken(number: int, raw: bytes, problem: str) -> RawRecord:
    return RawRecord(position=number, data=None, raw=raw[:65536], problem=f"line {number} {problem}")
