"""The one place where a foreign record becomes an ``Example``; pure, so every way in shares the same answers.

Numeric strings are read as numbers, since CSV files and old clients send them; everything else that does not fit is
refused with the field, the problem and the remedy, and never with the value, which may be personal data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from perennial.domain.example import Example, new_id
from perennial.domain.words import JSON, Priority, Source
from perennial.errors import InvalidExample, UnknownAgent

MAX_TEXT = 20_000  # characters, unless the task says otherwise
MAX_NOTE = 20_000
MAX_URL = 2_048
MAX_NAME = 128
MAX_JSON_DEPTH = 32
MAX_JSON_ITEMS = 10_000
MAX_JSON_STRING = 100_000

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_example(
    *,
    known: Collection[str],
    agent_name: Any,
    task_type: Any,
    input_text: Any,
    expected_output: Any,
    uncertainty_score: Any,
    importance_score: Any = 0.5,
    source_url: Any = "",
    user_feedback: Any = None,
    correction_priority: Any = 0,
    timestamp: Any = None,
    predicted_output: Any = None,
    source: Source = Source.EXAMPLE,
    source_id: Any = "",
    tag: Any = "",
    example_id: Any = None,
    max_length: int = MAX_TEXT,
) -> Example:
    """Make an ``Example`` of raw arguments, or raise InvalidExample (UnknownAgent) that names the field.

    ``known`` are the agents of the fleet; ``max_length`` counts characters. An unknown task is not an error here: the
    buffer stores such rows in quarantine. A naive timestamp is taken as UTC.

    >>> check_example(known={"scout"}, agent_name="scout", task_type="sentiment", input_text="Rates fell.",
    ...               expected_output="neutral", uncertainty_score="0.7").uncertainty
    0.7
    """
    return Example(
        agent=_agent(agent_name, known),
        task=_name(task_type, "task_type", "name the task as the agent's fleet file does"),
        input_text=text_of(input_text, "input_text", max_length),
        expected_output=json_of(expected_output, "expected_output"),
        uncertainty=unit_of(uncertainty_score, "uncertainty_score", "send 1 - confidence"),
        importance=unit_of(importance_score, "importance_score", "send a share, 0.5 when unsure"),
        priority=priority_of(correction_priority),
        source=source,
        source_url=_short(source_url, "source_url", MAX_URL),
        source_id=_short(source_id, "source_id", MAX_NAME),
        tag=_short(tag, "source_tag", MAX_NAME),
        user_feedback=None if user_feedback is None else _string(user_feedback, "user_feedback", MAX_NOTE),
        predicted_output=json_of(predicted_output, "predicted_output"),
        created_at=time_of(timestamp),
        example_id=id_of(example_id),
    )


def _agent(value: Any, known: Collection[str]) -> str:
    name = _name(value, "agent_name", "name an agent of the fleet")
    if name not in known:
        raise UnknownAgent(name, list(known))
    return name


def _name(value: Any, field: str, remedy: str) -> str:
    name = _string(value, field, MAX_NAME)
    if not name.strip():
        raise InvalidExample(field, "is empty", remedy)
    return name


def text_of(value: Any, field: str, most: int) -> str:
    """A text that a model can be trained on: not empty, at most ``most`` characters, storable."""
    text = _string(value, field, most)
    if not text.strip():
        raise InvalidExample(field, "is empty", "send the text that the model saw")
    return text


def _string(value: Any, field: str, most: int) -> str:
    if not isinstance(value, str):
        raise InvalidExample(field, f"is {_kind(value)}, not a string", "send a string")
    if len(value) > most:
        raise InvalidExample(field, f"has {len(value)} characters, more than {most}", "shorten it or raise max_length")
    if "\0" in value:
        raise InvalidExample(field, "holds a NUL character", "remove it; PostgreSQL cannot store it")
    if not value.isascii() and _SURROGATE.search(value):
        raise InvalidExample(field, "holds half a surrogate pair", "decode the text as UTF-8 before sending it")
    return value


def _short(value: Any, field: str, most: int) -> str:
    return "" if value is None else _string(value, field, most)


def unit_of(value: Any, field: str, remedy: str) -> float:
    """A finite number in [0, 1]; strings that spell one are read, booleans are refused."""
    number = _number(value, field, remedy)
    if not 0.0 <= number <= 1.0:
        raise InvalidExample(field, "is not between 0 and 1", remedy)
    return number


def _number(value: Any, field: str, remedy: str) -> float:
    value = _plain_scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise InvalidExample(field, f"is {_kind(value)}, not a number", remedy)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise InvalidExample(field, "is not a number", remedy) from None
    if not math.isfinite(number):
        raise InvalidExample(field, "is not finite", remedy)
    return number


def priority_of(value: Any) -> Priority:
    """One of the four priorities; whole numbers and their strings are read.

    >>> priority_of("2").name
    'HIGH'
    """
    number = _number(value, "correction_priority", "send 0 (low), 1 (medium), 2 (high) or 3 (critical)")
    if number not in (0, 1, 2, 3):
        raise InvalidExample(
            "correction_priority", "is not 0, 1, 2 or 3", "send 0 (low), 1 (medium), 2 (high) or 3 (critical)"
        )
    return Priority(int(number))


def time_of(value: Any) -> datetime:
    """A time in UTC; None is now, a naive time is taken as UTC, ISO 8601 strings are read."""
    if value is None or value == "":
        return datetime.now(UTC)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidExample("timestamp", "is not an ISO 8601 time", "send 2025-08-01T14:02:00+00:00") from None
    if not isinstance(value, datetime):
        raise InvalidExample("timestamp", f"is {_kind(value)}, not a time", "send a datetime with its zone")
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    # a year at either end cannot be read back from a database in another time zone, and would stop each claim that meets the row
    if not 2 <= moment.year <= 9998:
        raise InvalidExample("timestamp", "is out of range", "send a time of this era, or none")
    return moment.astimezone(UTC)


def id_of(value: Any) -> UUID:
    """A UUID; None makes a new one. The id makes a repeated add harmless."""
    if value is None or value == "":
        return new_id()
    if isinstance(value, UUID):
        return value
    try:
        return UUID(_string(value, "example_id", 64))
    except ValueError:
        raise InvalidExample("example_id", "is not a UUID", "send a UUID, the same one on a repeat") from None


def json_of(value: Any, field: str) -> JSON:
    """The value as plain JSON: numpy scalars and arrays, times, tuples and enums are converted, the rest is refused.

    >>> json_of({"entities": [(0, 5, "ORG")]}, "expected_output")
    {'entities': [[0, 5, 'ORG']]}
    """
    if isinstance(value, str) and not value.strip():
        raise InvalidExample(field, "is an empty string", "send the label, or None when it is not known yet")
    return _Walk(field).walk(value, 0)


class _Walk:
    """Converts one value and counts what it holds, so that a hostile record stays cheap."""

    def __init__(self, field: str) -> None:
        self.field = field
        self.items = 0

    def refuse(self, problem: str, remedy: str) -> InvalidExample:
        return InvalidExample(self.field, problem, remedy)

    def walk(self, value: Any, depth: int) -> JSON:
        self.items += 1
        if depth > MAX_JSON_DEPTH:
            raise self.refuse(f"is nested deeper than {MAX_JSON_DEPTH} levels", "flatten it")
        if self.items > MAX_JSON_ITEMS:
            raise self.refuse(f"holds more than {MAX_JSON_ITEMS} values", "send a reference instead")
        value = _plain_scalar(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _string(value, self.field, MAX_JSON_STRING)
        if isinstance(value, int | float | Decimal):
            return self.number(value)
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, UUID):
            return str(value)
        return self.container(value, depth)

    def number(self, value: int | float | Decimal) -> int | float:
        if isinstance(value, int):
            if abs(value) >= 2**63:
                raise self.refuse("holds a number of more than 64 bits", "send it as a string")
            return value
        number = float(value)
        if not math.isfinite(number):
            raise self.refuse("holds NaN or infinity, which JSON does not know", "send None when it is not known")
        return number

    def container(self, value: Any, depth: int) -> JSON:
        if isinstance(value, dict):
            return {self.key(name): self.walk(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.walk(item, depth + 1) for item in value]
        raise self.refuse(f"holds {_kind(value)}, which is no JSON", "send strings, numbers, lists and dictionaries")

    def key(self, name: Any) -> str:
        if isinstance(name, int) and not isinstance(name, bool):
            return str(name)
        if not isinstance(name, str):
            raise self.refuse(f"has {_kind(name)} as a key", "use strings as keys")
        return _string(name, self.field, MAX_JSON_STRING)


def _plain_scalar(value: Any) -> Any:
    """Numpy scalars and arrays as Python values, without importing numpy; enums as their values."""
    if isinstance(value, Enum):
        return value.value
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
