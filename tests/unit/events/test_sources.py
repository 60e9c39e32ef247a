"""The laws of event sources, met by the drop folder and its twin in memory; and what is special to files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import SourceError
from perennial.events.drop_folder import DropFolder
from perennial.events.files import MAX_LINE, read_records
from perennial.events.memory import MemorySource
from perennial.events.source import Batch, EventSource, Position

Make = Callable[[Mapping[str, Sequence[dict[str, Any]]]], EventSource]


@pytest.fixture(params=["memory", "drop folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def in_memory(parts: Mapping[str, Sequence[dict[str, Any]]]) -> EventSource:
        return MemorySource(parts)

    def in_folder(parts: Mapping[str, Sequence[dict[str, Any]]]) -> EventSource:
        for name, records in parts.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        return DropFolder(tmp_path, quiet_seconds=0)

    return in_memory if request.param == "memory" else in_folder


class Store:
    """What a reader keeps: positions, moved with each batch."""

    def __init__(self) -> None:
        self.positions: dict[str, Position] = {}
        self.read: list[Mapping[str, Any]] = []

    def keep(self, batch: Batch) -> None:
        self.positions[batch.part] = Position(position=batch.position, finished=batch.finished)
        self.read += [record.data for record in batch.records if record.data is not None]

    def drain(self, source: EventSource, size: int = 3, stop_after: int = 10**6) -> None:
        for number, batch in enumerate(source.poll(self.positions.get, size=size), 1):
            self.keep(batch)
            if number >= stop_after:
                return  # killed before settle
            source.settle(batch)


def parts(*counts: int) -> dict[str, list[dict[str, Any]]]:
    return {f"part{index}": [{"part": index, "n": n} for n in range(count)] for index, count in enumerate(counts)}


def test_every_record_comes_once_and_in_order_with_growing_positions(make: Make) -> None:
    given = parts(7, 1, 0)
    source, store = make(given), Store()
    last: dict[str, int] = {}
    for batch in source.poll(store.positions.get, size=3):
        assert len(batch.records) <= 3
        for record in batch.records:
            assert record.position > last.get(batch.part, 0)
            last[batch.part] = record.position
        assert batch.position == last.get(batch.part, 0)
        store.keep(batch)
        source.settle(batch)
    assert store.read == [*given["part0"], *given["part1"]]
    store.drain(source)
    assert len(store.read) == 8


@pytest.mark.parametrize("killed_after", range(1, 8))
def test_a_reader_killed_anywhere_goes_on_where_its_store_stands(make: Make, killed_after: int) -> None:
    given = parts(7, 4)
    source, store = make(given), Store()
    store.drain(source, stop_after=killed_after)
    store.drain(source)
    store.drain(source)
    assert store.read == [*given["part0"], *given["part1"]]
    assert all(position.finished for position in store.positions.values())


def test_read_files_are_put_away_and_the_same_bytes_are_not_read_again(tmp_path: Path) -> None:
    folder, store = DropFolder(tmp_path, quiet_seconds=0), Store()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"n": 1}\n')
    store.drain(folder)
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n')
    store.drain(folder)
    assert store.read == [{"n": 1}]
    assert folder.waiting() == []
    assert len(list((tmp_path / "done").iterdir())) == 3


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    for name in ("x.jsonl.part", "x.jsonl.tmp", ".x.jsonl", "readme.txt"):
        (tmp_path / name).write_text('{"n": 1}\n')
    (tmp_path / "fresh.jsonl").write_text('{"n": 1}\n')
    assert DropFolder(tmp_path).waiting() == []
    old = time.time() - 5
    os.utime(tmp_path / "fresh.jsonl", (old, old))
    assert DropFolder(tmp_path).waiting() == ["fresh.jsonl"]
    assert DropFolder(tmp_path / "nowhere").waiting() == []


def test_a_file_that_grows_while_it_is_read_stays_and_is_read_whole(tmp_path: Path) -> None:
    folder, store, file = DropFolder(tmp_path, quiet_seconds=0), Store(), tmp_path / "log.jsonl"
    file.write_text('{"n": 1}\n')
    for batch in folder.poll(store.positions.get):
        store.keep(batch)
        with file.open("a") as stream:
            stream.write('{"n": 2}\n')
        folder.settle(batch)
    assert file.exists()
    store.drain(folder)
    assert not file.exists()
    assert store.read == [{"n": 1}, {"n": 1}, {"n": 2}]  # under new bytes it is a new part; the buffer knows the repeat


def test_an_unreadable_file_is_named_after_the_others_were_read(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").symlink_to(tmp_path / "bad.jsonl")
    (tmp_path / "good.jsonl").write_text('{"n": 1}\n')
    store = Store()
    store.drain(DropFolder(tmp_path, quiet_seconds=0))
    assert store.read == [{"n": 1}]
    target = tmp_path / "bad.csv"
    target.write_text("n\n1\n")
    source = DropFolder(tmp_path, quiet_seconds=0)
    target_open = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "bad.csv":
            raise PermissionError(13, "Permission denied")
        return target_open(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(SourceError, match="1 file"):
            store.drain(source)


def problems(path: Path) -> dict[int, str]:
    return {record.position: record.problem for record in read_records(path) if record.problem is not None}


def test_broken_lines_are_named_by_number_and_the_rest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    lines = [
        b'\xef\xbb\xbf{"n": 1}', b'{"n": 2', b"", b'["a list"]', b'{"n": NaN}', b'{"n": "\xff"}', b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}", b'{"t": "' + b"x" * MAX_LINE + b'"}', b'{"n": 10}',
    ]  # fmt: skip
    file.write_bytes(b"\n".join(lines))
    found = problems(file)
    assert sorted(found) == [2, 4, 5, 6, 7, 8, 9]
    assert all(text.startswith(f"line {number} ") and "; " in text for number, text in found.items())
    assert [record.data for record in read_records(file) if record.data] == [{"n": 1}, {"n": 10}]


def test_csv_knows_quotes_empty_cells_and_broken_rows(tmp_path: Path) -> None:
    file = tmp_path / "mixed.csv"
    file.write_bytes(
        b'\xef\xbb\xbftext,label,confidence\r\n"One, two",good,0.9\r\n"two\nlines",,\r\nx,y\r\n\r\nlatin \xe9,good,1\r\n'
    )
    rows = {record.position: record.data for record in read_records(file) if record.data is not None}
    assert rows[2] == {"text": "One, two", "label": "good", "confidence": "0.9"}
    assert rows[4] == {"text": "two\nlines"}
    assert list(problems(file)) == [5]
    assert "\udce9" in rows[7]["text"]


def test_a_quote_that_nothing_closes_costs_its_own_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "stray.csv"
    lines = [f"text {number},good" for number in range(2, 5001)]
    lines[3] = '"text 5,good'  # line 5
    lines[998] = '"a ""quoted"" word, and a comma",good'  # line 1,000
    file.write_text("\n".join(["text,label", *lines]))
    rows = {record.position: record.data for record in read_records(file) if record.data is not None}
    assert sorted(rows) == [number for number in range(2, 5001) if number != 5]
    assert rows[1000] == {"text": 'a "quoted" word, and a comma', "label": "good"}
    assert list(problems(file)) == [5]
    broken = next(record for record in read_records(file) if record.problem)
    assert broken.raw == b'"text 5,good\n'
    lines[998] = "text 1000,good"  # no quote below it at all: it reaches for the end of the file
    file.write_text("\n".join(["text,label", *lines]))
    assert list(problems(file)) == [5]
    assert sum(record.data is not None for record in read_records(file)) == 4998


def test_a_line_without_end_in_a_csv_file_is_refused_and_not_held_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text("text,label\n" + "x" * (3 * MAX_LINE) + ",good\nshort,good\n")
    assert list(problems(file)) == [2]
    assert [record.data for record in read_records(file) if record.data] == [{"text": "short", "label": "good"}]
    assert max(len(record.raw) for record in read_records(file)) <= 65536


@pytest.mark.parametrize("header", ['"text,label\na,b\n', "x" * 200_000 + ",label\na,b\n"], ids=["quote", "length"])
def test_a_header_that_cannot_be_read_keeps_no_other_file_out(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text(header)
    (tmp_path / "b.jsonl").write_text('{"n": 1}\n')
    store = Store()
    with pytest.raises(SourceError, match=r"a\.csv: line 1, which names the fields, is not CSV"):
        store.drain(DropFolder(tmp_path, quiet_seconds=0))
    assert store.read == [{"n": 1}]
    assert (tmp_path / "a.csv").exists()  # nothing of it was read


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_text("")
    with pytest.raises(SourceError, match=r"x\.xlsx"):
        list(read_records(tmp_path / "x.xlsx"))
    with pytest.raises(SourceError, match="cannot be read"):
        list(read_records(tmp_path / "none.csv"))
