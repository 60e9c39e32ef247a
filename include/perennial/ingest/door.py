"""From a record with whatever field names to a checked example, with what the fleet knows at hand."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from perennial.domain.example import Example
from perennial.domain.words import Source, TaskKind
from perennial.errors import InvalidExample
from perennial.ingest.checks import MAX_TEXT, check_example, unit_of
from perennial.ingest.results import TaskLimits

NAMES: Mapping[str, tuple[str, ...]] = {
    "agent_name": ("agent_name", "agent"),
    "task_type": ("task_type", "task"),
    "input_text": ("input_text", "text", "input"),
    "expected_output": ("expected_output", "label", "actual_output"),
    "uncertainty_score": ("uncertainty_score", "uncertainty"),
    "importance_score": ("importance_score", "importance"),
    "source_url": ("source_url", "url"),
    "user_feedback": ("user_feedback", "feedback"),
    "correction_priority": ("correction_priority", "priority"),
    "timestamp": ("timestamp", "created_at"),
    "predicted_output": ("predicted_output",),
    "source_id": ("source_id",),
    "tag": ("source_tag", "tag"),
    "example_id": ("example_id",),
}
_CONFIDENCE = ("confidence_score", "confidence")
_LOOKS = 2  # for strangers in a second
_REQUIRED = {"agent_name": "name an agent of the fleet", "task_type": "name the task", "input_text": "send the text"}


class KnowsFleet(Protocol):
    """What the door asks: the active agents with their tasks by every name."""

    def fleet(self) -> dict[str, dict[str, TaskLimits]]: ...


class Door:
    """Checks records against the fleet as the store knows it; remembers the fleet for ``max_age`` seconds.

    One per process is enough, and safe between threads. Raises InvalidExample (UnknownAgent), or StoreUnavailable when the
    fleet is not known yet and the store is away.
    """

    def __init__(self, store: KnowsFleet, *, max_age: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._max_age, self._clock = store, max_age, clock
        self._guard = threading.Lock()
        self._fleet: dict[str, dict[str, TaskLimits]] = {}
        self._read_at = -math.inf
        self._strangers = deque([-math.inf] * _LOOKS, maxlen=_LOOKS)  # when a stranger was looked for

    def fleet(self, *, fresh: bool = False) -> dict[str, dict[str, TaskLimits]]:
        """The fleet, read again when it is older than ``max_age`` or ``fresh`` is asked for."""
        with self._guard:
            if fresh or self._clock() - self._read_at > self._max_age:
                self._read()
            return self._fleet

    def _read(self) -> None:
        self._fleet = self._store.fleet()
        self._read_at = self._clock()

    def _look_for_stranger(self) -> dict[str, dict[str, TaskLimits]]:
        """The fleet with who joined a second ago or earlier, mostly also who joined just now: a file of one wrong name must not
        ask for each record, while all others wait for this lock."""
        with self._guard:
            now = self._clock()
            if now - self._strangers[0] >= 1.0:
                self._read()
                self._strangers.append(now)
            return self._fleet

    def limits(self, agent: str, task: str) -> TaskLimits | None:
        """What is known of a task by any of its names."""
        return _limits(self.fleet(), agent, task)

    def outputs(self, agent: Any, task: Any, *values: Any) -> tuple[TaskKind, list[Any]]:
        """A task's kind (classification when it is not known) and outputs as that kind compares them: scores as strings become
        numbers."""
        limits = _limits(self._known(agent), agent, task)
        kind = TaskKind(limits.kind) if limits is not None else TaskKind.CLASSIFICATION
        return kind, [_score(value) if kind is TaskKind.SCORE else value for value in values]

    def _known(self, agent: Any) -> dict[str, dict[str, TaskLimits]]:
        known = self.fleet()
        stranger = isinstance(agent, str) and agent not in known
        return self._look_for_stranger() if stranger else known  # it may have joined a moment ago

    def check(self, *, source: Source = Source.EXAMPLE, **arguments: Any) -> Example:
        """``check_example`` with the fleet's agents and the task's longest text; scores as strings become numbers."""
        agent, task = arguments.get("agent_name"), arguments.get("task_type")
        known = self._known(agent)
        limits = _limits(known, agent, task)
        if limits is not None and limits.kind == TaskKind.SCORE.value:
            for name in ("expected_output", "predicted_output"):
                arguments[name] = _score(arguments.get(name))
        most = limits.max_length if limits is not None else MAX_TEXT
        return check_example(known=known, source=source, max_length=most, **arguments)

    def check_record(
        self, record: Mapping[str, Any], *, source: Source = Source.EXAMPLE, defaults: Mapping[str, Any] | None = None
    ) -> Example:
        """One record of a file or a request, under any of the accepted field names; unknown fields are passed over.

        ``confidence`` or ``confidence_score`` stands for 1 - uncertainty; with neither, uncertainty is 0.5.
        """
        return self.check(source=source, **arguments_of(record, defaults or {}))


def arguments_of(record: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``check_example`` that a record holds.

    >>> arguments_of({"agent": "scout", "task": "sentiment", "text": "Up.", "label": "good", "confidence": 0.75}, {})[
    ...     "uncertainty_score"]
    0.25
    """
    found: dict[str, Any] = {}
    for field, names in NAMES.items():
        present = [name for name in names if name in record]
        if len(present) > 1:
            raise InvalidExample(field, f"is given as {' and as '.join(present)}", "keep one of them")
        if present:
            found[field] = record[present[0]]
        elif field in defaults:
            found[field] = defaults[field]
    for field, remedy in _REQUIRED.items():
        if field not in found:
            raise InvalidExample(field, "is missing", remedy)
    found.setdefault("expected_output", None)
    confidence = [name for name in _CONFIDENCE if name in record]
    if "uncertainty_score" not in found:
        found["uncertainty_score"] = uncertainty_of(record[confidence[0]], confidence[0]) if confidence else 0.5
    return found


def uncertainty_of(confidence: Any, field: str = "confidence_score") -> float:
    """1 - confidence, without the noise of binary fractions, so that 0.4 gives 0.6 and not a hair more.

    >>> uncertainty_of(0.4)
    0.6
    """
    return round(1.0 - unit_of(confidence, field, "send the model's confidence"), 9)


def _limits(known: Mapping[str, Mapping[str, TaskLimits]], agent: Any, task: Any) -> TaskLimits | None:
    return known.get(agent, {}).get(task) if isinstance(agent, str) and isinstance(task, str) else None


def _score(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
