"""Which columns of a person's own file are the text and the labels of which tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from perennial.domain.names import as_name, label_text
from perennial.domain.words import TaskKind
from perennial.errors import SourceError, UnknownAgent
from perennial.ingest.door import NAMES, Door
from perennial.ingest.results import TaskLimits

_TASK, _LABEL, _TEXT = NAMES["task_type"], NAMES["expected_output"], NAMES["input_text"]


class Columns:
    """Turns one record of a file into the examples that it holds, one for each label of a task of the agent.

    Without an agent, records stay as they are. Raises UnknownAgent, and SourceError for a column that is in none of ``records``,
    or when none of them says which task is meant.
    """

    def __init__(
        self, door: Door, *, agent: str | None, task: str | None, text_column: str | None, label_columns: tuple[str, ...],
        records: Callable[[], Iterable[Mapping[str, Any]]],
    ) -> None:  # fmt: skip
        self._text, self._labels, self._task = text_column, label_columns, task
        self._records = records  # all of the file, read again only where a record leaves something open
        self._told: bool | None = None
        self._known: Mapping[str, TaskLimits] = {}
        self._checked, self._agent = False, agent
        if agent is None:
            if text_column or label_columns:
                raise SourceError("columns are named for one agent; say which: --agent")
            return
        fleet = door.fleet(fresh=True)
        if agent not in fleet:
            raise UnknownAgent(agent, list(fleet))
        self._known = fleet[agent]
        if task is not None and label_columns and len(label_columns) > 1:
            raise SourceError(
                "one --task takes one --label-column; without --task each column belongs to the task of its name"
            )

    @property
    def _names(self) -> list[str]:
        return sorted({limits.name for limits in self._known.values()})

    def examples(self, data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The examples of one record, each with what tells it from the record's others; one at least."""
        named = next((data[name] for name in NAMES["agent_name"] if name in data), None)
        if not self._known or (named is not None and named != self._agent):
            yield "", data
            return
        self._check(data)
        base = dict(data)
        if self._text is not None and self._text in data:
            base = {name: value for name, value in base.items() if name not in _TEXT} | {"text": data[self._text]}
        own = next((data[name] for name in _TASK if name in data), None)
        columns = self._columns(data)
        if not columns:
            if own is not None and not isinstance(own, str):
                yield "", base  # the door says what is wrong with it
                return
            task = own or self._task or (self._names[0] if len(self._names) == 1 else None)
            if task is not None:
                yield "", self._typed(base, task)
            elif self._others_tell():
                yield "", base  # it alone has no label, or none of a known task: the door refuses it
            else:
                raise SourceError(self._which())
            return
        rest = {name: value for name, value in base.items() if name not in (*_LABEL, *_TASK, *columns)}
        for column, task in columns.items():
            part = f"\x1f{task}" if len(columns) > 1 else ""
            yield part, self._typed({**rest, "task": task, "label": data.get(column)}, task)

    def _columns(self, data: Mapping[str, Any]) -> dict[str, str]:
        """The label columns of a record with their tasks; empty when its label has its usual name."""
        if self._labels:
            return {column: self._task_of(column) for column in self._labels}
        if any(name in data for name in (*_LABEL, *_TASK)):
            return {}
        found = {column: self._task_named(column) for column in data}
        return {column: task for column, task in found.items() if task is not None and self._task in (None, task)}

    def _task_of(self, column: str) -> str:
        task = self._task or self._task_named(column) or (self._names[0] if len(self._names) == 1 else None)
        if task is None:
            raise SourceError(f"no task of {self._agent} is called like the column {column[:40]!r}; {self._which()}")
        return task

    def _task_named(self, column: str) -> str | None:
        limits = self._known.get(column) or self._known.get(as_name(column))
        return None if limits is None else limits.name

    def _which(self) -> str:
        return f"{self._agent} has {len(self._names)} tasks; say which one the labels are for: --task {' or --task '.join(self._names)}"

    def _others_tell(self) -> bool:
        """Whether any record of the file says which task it is for."""
        if self._told is None:
            self._told = any(any(name in data for name in _TASK) or self._columns(data) for data in self._records())
        return self._told

    def _check(self, data: Mapping[str, Any]) -> None:
        """Once, on the first record: a column that was named must be there, empty cells apart."""
        if self._checked:
            return
        self._checked = True
        there = ", ".join(repr(name[:40]) for name in list(data)[:20])
        for option, column in (("--text-column", self._text), *(("--label-column", one) for one in self._labels)):
            if column is None or column in data or any(column in other for other in self._records()):
                continue
            raise SourceError(f"no record has a column {column[:40]!r}; {option} must be one of: {there}")

    def _typed(self, data: Mapping[str, Any], task: str) -> Mapping[str, Any]:
        """Numbers that name a class, as in a closed list of labels, become its text: CSV knows no other."""
        limits = self._known.get(task)
        name = next((one for one in _LABEL if one in data), None)
        if name is None or limits is None or limits.kind == TaskKind.SCORE.value or limits.labels is None:
            return {**data} if any(one in data for one in _TASK) else {**data, "task": task}
        text = label_text(data[name])
        named = data if any(one in data for one in _TASK) else {**data, "task": task}
        return {**named, name: text} if text in limits.labels and not isinstance(data[name], str) else named
