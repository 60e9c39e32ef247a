"""Many examples at once: from an iterable or from a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from perennial.client.records import TrainingExample
from perennial.domain.example import Example
from perennial.domain.words import Source
from perennial.errors import InvalidExample
from perennial.ingest.door import Door

if TYPE_CHECKING:
    from perennial.ingest.buffer import BufferStore

logger = logging.getLogger(__name__)

CHUNK = 5_000  # rows per transaction
_SHOWN = 20  # problems that a result names

_Given: TypeAlias = tuple[str, Mapping[str, Any] | None, str]  # its name for people, its fields, or else its problem


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkResult:
    """What became of many records. ``problems`` names the first 20 that were refused, without their values."""

    added: int = 0
    duplicates: int = 0
    quarantined: int = 0
    evicted: int = 0
    rejected: int = 0
    problems: tuple[str, ...] = ()


def add_examples(
    examples: Iterable[TrainingExample | Mapping[str, Any]], *, buffer: BufferStore | None = None
) -> BulkResult:
    """Add examples, durable every 5,000; a record that is refused is counted and named, the rest goes on.

    Mappings may use any field name that files may use. Raises StoreUnavailable when the store went away; what was added until
    then stays, and records that carry an ``example_id`` may be sent again.
    """
    numbered = (_given(f"record {number}", one) for number, one in enumerate(examples, 1))
    return _load(numbered, Source.EXAMPLE, {}, *_store(buffer))


def _given(name: str, one: object) -> _Given:
    if isinstance(one, TrainingExample):
        return name, vars(one), ""
    return (name, one, "") if isinstance(one, Mapping) else (name, None, "is neither a TrainingExample nor a mapping")


def import_file(
    path: str | Path, agent: str | None = None, task: str | None = None, *, text_column: str | None = None,
    label_columns: Sequence[str] = (), buffer: BufferStore | None = None,
) -> BulkResult:  # fmt: skip
    """Add the records of a JSON Lines or CSV file; agent and task stand in where a record names none.

    The task may be left out when the agent has one, when records name theirs, or when columns are called like the agent's tasks:
    then each gives an example of its own. ``text_column`` and ``label_columns`` name columns that are called otherwise.
    A record's id is its own ``example_id``, or else follows from the file's bytes and its line; of several examples of one record
    each has an id that follows from that. So importing a file again, also after a kill, adds nothing twice.
    Raises SourceError when the file cannot be read or none of its records says which task is meant; UnknownAgent.
    """
    from uuid import NAMESPACE_OID, uuid5

    from perennial.client.columns import Columns
    from perennial.errors import SourceError
    from perennial.events.files import file_digest, read_records
    from perennial.ingest.checks import id_of

    file = Path(path)
    if not file.is_file():
        raise SourceError(f"{file} is not there; give the path of a .jsonl or .csv file")
    digest = file_digest(file)
    defaults = {name: value for name, value in (("agent_name", agent), ("task_type", task)) if value is not None}
    store, door = _store(buffer)
    columns = Columns(
        door, agent=agent, task=task, text_column=text_column, label_columns=tuple(label_columns),
        records=lambda: (record.data for record in read_records(file) if record.data is not None),
    )  # fmt: skip

    def identity(position: int, part: str, own: Any) -> Any:
        if own is None or own == "":
            return uuid5(NAMESPACE_OID, f"import\x1f{digest}\x1f{position}{part}")
        try:
            return uuid5(id_of(own), part) if part else own
        except InvalidExample:
            return own  # the door says what is wrong with it

    def lines() -> Iterator[_Given]:
        for record in read_records(file):
            if record.data is None:
                yield f"line {record.position}", None, record.problem or "is unreadable"
                continue
            for part, data in columns.examples(record.data):
                known = identity(record.position, part, data.get("example_id"))
                yield f"line {record.position}", {**data, "example_id": known}, ""

    return _load(lines(), Source.IMPORT, {"source_id": f"import:{digest[:12]}", **defaults}, store, door)


def _store(buffer: BufferStore | None) -> tuple[BufferStore, Door]:
    if buffer is not None:
        return buffer, Door(buffer)
    from perennial.client.connection import connection

    return connection().buffer, connection().door


def _load(
    records: Iterator[_Given], source: Source, defaults: Mapping[str, Any], buffer: BufferStore, door: Door
) -> BulkResult:
    totals = {"added": 0, "duplicates": 0, "quarantined": 0, "evicted": 0, "rejected": 0}
    problems: list[str] = []
    while chunk := list(islice(records, CHUNK)):
        examples: list[Example] = []
        for name, record, problem in chunk:
            try:
                if record is None:
                    raise InvalidExample("record", problem, "the rest was taken")
                examples.append(door.check_record(record, source=source, defaults=defaults))
            except InvalidExample as error:
                totals["rejected"] += 1
                if len(problems) < _SHOWN:
                    problems.append(f"{name}: {error}")
        result = buffer.add_many(examples)
        for key in ("added", "duplicates", "quarantined", "evicted"):
            totals[key] += getattr(result, key)
    if totals["rejected"]:
        buffer.count("", "rejected", totals["rejected"])
        logger.warning("%s records were rejected, the first: %s", totals["rejected"], problems[0])
    return BulkResult(**totals, problems=tuple(problems))
