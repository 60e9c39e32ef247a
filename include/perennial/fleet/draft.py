"""What an agent for a file of examples should look like: its tasks, their labels, and thresholds that fit its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.domain.names import as_name, label_text, name_problem
from perennial.domain.words import JSON, TaskKind
from perennial.errors import InvalidExample, SourceError
from perennial.events.source import RawRecord
from perennial.guard.records import is_label, is_score
from perennial.ingest.checks import text_of
from perennial.ingest.door import NAMES

MAX_TEXT = 20_000  # characters, as Task.max_length
LONGEST_LABEL = 64  # characters: what is longer is a text
MOST_LABELS = 200
RARE = 12  # rows, as Task.new_label_rows: a label with fewer is hardly learnt and hardly measured
_FEW_VALUES = 20  # different whole numbers beyond 0 and 1 that may still be names of classes
_ENOUGH = 20  # rows from which on many different labels mean that they are texts
_SHOWN = 20  # broken lines that are named


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftTask:
    """One task as found: ``labels`` with their rows in order of the label; empty for a score task, which has a range."""

    name: str
    column: str
    kind: TaskKind
    rows: int
    labels: Mapping[str, int]
    unlabelled: int = 0
    lowest: float | None = None
    highest: float | None = None

    @property
    def rare(self) -> dict[str, int]:
        """Labels with fewer rows than a training needs."""
        return {label: rows for label, rows in self.labels.items() if rows < RARE}


@dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """Settings for a number of rows; see ``suggest``."""

    update_threshold: int
    max_buffer_size: int
    batch: int
    holdout_share: float
    holdout_rows: int  # what the share makes of the smallest task, about


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An agent to be written. ``broken`` names the first lines that cannot be used, never their content."""

    name: str
    text_column: str
    rows: int
    tasks: tuple[DraftTask, ...]
    suggestion: Suggestion
    repeated: int = 0  # texts that occur again with the same label
    contradictory: int = 0  # texts that occur with different labels
    unusable: int = 0
    broken: tuple[str, ...] = ()


def suggest(smallest: int, total: int) -> Suggestion:
    """Settings for ``total`` labelled rows, of which the task with the fewest has ``smallest``.

    The holdout takes a tenth, more (at most 0.3) where a tenth would be fewer than the 100 rows below which a person decides. An
    update waits for a twentieth of the rows, within 20 and 500, and never for more than the first import brings. The buffer takes
    the file twice.

    >>> suggest(400, 400)
    Suggestion(update_threshold=20, max_buffer_size=1000, batch=500, holdout_share=0.3, holdout_rows=120)
    >>> suggest(5000, 5000)
    Suggestion(update_threshold=250, max_buffer_size=10000, batch=3000, holdout_share=0.1, holdout_rows=500)
    """
    share = 0.10 if smallest <= 0 else min(0.30, max(0.10, round(120 / smallest, 2)))
    trained = int(total * (1 - share))
    threshold = max(1, min(max(20, min(500, total // 20)), trained // 2))
    room = max(1000, -(-2 * total // 1000) * 1000)
    return Suggestion(
        update_threshold=threshold, max_buffer_size=room, batch=max(500, min(3000, trained)), holdout_share=share,
        holdout_rows=int(smallest * share),
    )  # fmt: skip


def draft_of(
    name: str, records: Iterable[RawRecord], *, text_column: str | None = None, label_columns: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Draft:  # fmt: skip
    """Read records into a draft. Pure but for the reading; runs in the CLI.

    ``text_column`` and ``label_columns`` name columns that are not called as ``perennial import`` expects; each label column is a
    task, named by ``tasks`` in the same order or after its column. Records may name their task themselves. Raises SourceError
    when no agent can be made of them: no such column, no usable row, a label column that holds texts, scores beyond 0 and 1.
    """
    reading = _Reading(name, text_column, tuple(label_columns), tuple(tasks))
    for record in records:
        reading.take(record)
    return reading.result()


class _Reading:
    """Collects values by task while the file is read once; of texts it keeps hashes alone."""

    def __init__(self, name: str, text_column: str | None, label_columns: tuple[str, ...], tasks: tuple[str, ...]):
        if tasks and len(tasks) != max(1, len(label_columns)):
            raise SourceError("give one --task for each --label-column, in the same order")
        for task in tasks:
            if problem := name_problem(task):
                raise SourceError(f"the task name {task[:48]!r} {problem}")
        self._name, self._text, self._columns, self._tasks = name, text_column, label_columns, tasks
        self._values: dict[str, list[JSON]] = {}
        self._column_of: dict[str, str] = {}
        self._missing: Counter[str] = Counter()
        self._seen: dict[tuple[str, int], set[str]] = {}
        self._text_hashes: set[int] = set()
        self._rows = self._repeated = self._unusable = 0
        self._broken: list[str] = []
        self._names: dict[str, None] = {}

    def take(self, record: RawRecord) -> None:
        if record.data is None:
            self._refuse(record.problem or f"line {record.position} is unreadable")
            return
        self._names.update(dict.fromkeys(str(name) for name in record.data))
        try:
            text = self._text_of(record.data)
            found = self._labels_of(record.data)
        except InvalidExample as error:
            self._refuse(f"line {record.position}: {error}")
            return
        self._rows += 1
        self._text_hashes.add(hash(text.strip()))
        for task, column, value in found:
            self._column_of.setdefault(task, column)
            values = self._values.setdefault(task, [])
            if value is None or value == "":
                self._missing[task] += 1
                continue
            values.append(value)
            seen = self._seen.setdefault((task, hash(text)), set())
            self._repeated += str(value) in seen
            seen.add(str(value))

    def _refuse(self, problem: str) -> None:
        self._unusable += 1
        if len(self._broken) < _SHOWN:
            self._broken.append(problem)

    def _text_of(self, data: Mapping[str, Any]) -> str:
        column = self._text or next((name for name in NAMES["input_text"] if name in data), None)
        if column is None or column not in data:
            raise InvalidExample(self._text or "text", "is missing", "name its column with --text-column")
        self._text = column
        return text_of(data[column], column, MAX_TEXT)

    def _labels_of(self, data: Mapping[str, Any]) -> list[tuple[str, str, JSON]]:
        if self._columns:
            names = self._tasks or tuple(as_name(column) for column in self._columns)
            return [
                (task, column, _plain(data.get(column), column))
                for task, column in zip(names, self._columns, strict=True)
            ]
        column = next((name for name in NAMES["expected_output"] if name in data), None)
        named = next((data[name] for name in NAMES["task_type"] if name in data), None)
        if named is not None and (not isinstance(named, str) or name_problem(named)):
            raise InvalidExample("task", "is no name of a task", "use small letters, digits and _")
        task = self._tasks[0] if self._tasks else named or as_name(column or "label")
        return [(task, column or "label", _plain(data.get(column or "label"), column or "label"))]

    def result(self) -> Draft:
        self._check_columns()
        tasks = tuple(self._task(name) for name in self._values)
        if not tasks or not any(task.rows for task in tasks):
            first = f"; the first: {self._broken[0]}" if self._broken else ""
            raise SourceError(f"no row of the file has a text and a label{first}")
        counts = [task.rows for task in tasks]
        return Draft(
            name=self._name, text_column=self._text or "text", rows=self._rows, tasks=tasks,
            suggestion=suggest(min(counts), sum(counts)), repeated=self._repeated,
            contradictory=sum(len(labels) > 1 for labels in self._seen.values()), unusable=self._unusable,
            broken=tuple(self._broken),
        )  # fmt: skip

    def _check_columns(self) -> None:
        if any(not name.isprintable() for name in self._names):
            raise SourceError(
                "the file is not UTF-8: its first line does not read as names of columns; save it as UTF-8"
            )
        there = ", ".join(repr(name[:40]) for name in list(self._names)[:20]) or "none"
        if self._names and self._text not in self._names:
            wanted = f"{self._text!r}" if self._text else " or ".join(NAMES["input_text"])
            raise SourceError(
                f"no column is called {wanted}; name the one with the texts: --text-column (there are: {there})"
            )
        for column in self._columns:
            if self._names and column not in self._names:
                raise SourceError(
                    f"no column is called {column[:40]!r}; name one with labels: --label-column (there are: {there})"
                )
            if column == self._text:
                raise SourceError(f"{column[:40]!r} cannot hold both the texts and the labels")
            if not self._tasks and name_problem(as_name(column)):
                raise SourceError(f"the column {column[:40]!r} makes no name of a task; name it: --task")
        if self._names and not self._columns and not any(name in self._names for name in NAMES["expected_output"]):
            raise SourceError(
                f"no column is called label; name the one with the labels: --label-column (there are: {there})"
            )
        if len(self._columns) != len({*(self._tasks or map(as_name, self._columns))}) and self._columns:
            raise SourceError("two label columns make one name of a task; name them apart: --task, once for each")

    def _task(self, name: str) -> DraftTask:
        if problem := name_problem(name):
            raise SourceError(f"the task name {name[:48]!r} {problem}; name it with --task")
        values, column = self._values[name], self._column_of[name]
        numbers = [_number(value) for value in values]
        known = [number for number in numbers if number is not None]
        common = {"name": name, "column": column, "rows": len(values), "unlabelled": self._missing[name]}
        if values and len(known) == len(values) and not self._classes(known, column):
            return DraftTask(**common, kind=TaskKind.SCORE, labels={}, lowest=min(known), highest=max(known))  # type: ignore[arg-type]
        counts = Counter(label_text(value) for value in values)
        self._check_labels(counts, column)
        return DraftTask(**common, kind=TaskKind.CLASSIFICATION, labels=dict(sorted(counts.items())))  # type: ignore[arg-type]

    def _classes(self, numbers: Sequence[float], column: str) -> bool:
        """Whether numbers are names of classes: whole, and few different ones. Scores lie between 0 and 1."""
        if all(number.is_integer() for number in numbers) and len(set(numbers)) <= _FEW_VALUES:
            return True
        if all(0.0 <= number <= 1.0 for number in numbers):
            return False
        raise SourceError(
            f"the column {column[:40]!r} holds numbers from {min(numbers):g} to {max(numbers):g}; a score task needs 0 to 1: "
            "divide them, or write classes such as low and high"
        )

    def _check_labels(self, counts: Counter[str], column: str) -> None:
        rows = sum(counts.values())
        texts = sum(
            not is_label(label) or len(label) > LONGEST_LABEL or hash(label.strip()) in self._text_hashes
            for label in counts
        )
        if texts:
            raise SourceError(
                f"the column {column[:40]!r} holds {texts} value(s) that are no labels: one line of at most {LONGEST_LABEL} characters, "
                "no @, fewer than six digits, and no text of the file; choose another --label-column"
            )
        if len(counts) > MOST_LABELS or (rows >= _ENOUGH and 2 * len(counts) > rows):
            raise SourceError(
                f"the column {column[:40]!r} holds {len(counts)} different values in {rows} rows, which are no labels; "
                "choose another --label-column"
            )


def _plain(value: JSON, column: str) -> JSON:
    if isinstance(value, str):
        return text_of(value, column, MAX_TEXT) if value.strip() else None
    if value is None or isinstance(value, bool) or is_score(value):
        return value
    raise InvalidExample(column, "is neither a name nor a number", "write one label per row")


def _number(value: JSON) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_score(value) else None
