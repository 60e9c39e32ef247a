"""What may become an example, and how everything else is refused: with field and remedy, never with the value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from perennial.domain.example import Example
from perennial.domain.words import Priority
from perennial.errors import InvalidExample, UnknownAgent
from perennial.ingest.checks import MAX_JSON_DEPTH, check_example

CANARY = "anna.karenina@example.org"


def check(**fields: Any) -> Example:
    given: dict[str, Any] = {
        "known": ["scout", "analyst"], "agent_name": "scout", "task_type": "sentiment", "input_text": "Rates fell.",
        "expected_output": "good", "uncertainty_score": 0.5, **fields,
    }  # fmt: skip
    return check_example(**given)


class Colour(Enum):
    RED = "red"


def deep(levels: int) -> Any:
    value: Any = CANARY
    for _ in range(levels):
        value = [value]
    return value


# the 23 malformed adds that the predecessor took or lost in silence, and their kin
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("agent_name", {"agent_name": "nobody"}),
    ("agent_name", {"agent_name": "Scout"}),
    ("agent_name", {"agent_name": ""}),
    ("agent_name", {"agent_name": None}),
    ("agent_name", {"agent_name": "sco\0ut"}),
    ("task_type", {"task_type": " "}),
    ("task_type", {"task_type": 7}),
    ("input_text", {"input_text": ""}),
    ("input_text", {"input_text": " \n\t"}),
    ("input_text", {"input_text": None}),
    ("input_text", {"input_text": CANARY.encode()}),
    ("input_text", {"input_text": f"{CANARY}\0"}),
    ("input_text", {"input_text": f"{CANARY}\ud83d"}),
    ("input_text", {"input_text": CANARY * 500_000}),
    ("expected_output", {"expected_output": {CANARY}}),
    ("expected_output", {"expected_output": float("nan")}),
    ("expected_output", {"expected_output": {"score": float("-inf")}}),
    ("expected_output", {"expected_output": np.float64("nan")}),
    ("expected_output", {"expected_output": np.array([1.0, np.inf])}),
    ("expected_output", {"expected_output": deep(MAX_JSON_DEPTH + 2)}),
    ("expected_output", {"expected_output": deep(100_000)}),
    ("expected_output", {"expected_output": [CANARY] * 20_000}),
    ("expected_output", {"expected_output": {"note": f"{CANARY}\0"}}),
    ("expected_output", {"expected_output": {"\udc80": 1}}),
    ("expected_output", {"expected_output": {(1, 2): CANARY}}),
    ("expected_output", {"expected_output": b"bytes"}),
    ("expected_output", {"expected_output": object()}),
    ("expected_output", {"expected_output": ""}),
    ("expected_output", {"expected_output": 2**64}),
    ("expected_output", {"expected_output": complex(1, 2)}),
    ("uncertainty_score", {"uncertainty_score": 7.5}),
    ("uncertainty_score", {"uncertainty_score": -0.01}),
    ("uncertainty_score", {"uncertainty_score": float("nan")}),
    ("uncertainty_score", {"uncertainty_score": float("inf")}),
    ("uncertainty_score", {"uncertainty_score": None}),
    ("uncertainty_score", {"uncertainty_score": True}),
    ("uncertainty_score", {"uncertainty_score": "very"}),
    ("uncertainty_score", {"uncertainty_score": "1e400"}),
    ("uncertainty_score", {"uncertainty_score": [0.5]}),
    ("importance_score", {"importance_score": -3}),
    ("importance_score", {"importance_score": None}),
    ("correction_priority", {"correction_priority": 99}),
    ("correction_priority", {"correction_priority": -1}),
    ("correction_priority", {"correction_priority": True}),
    ("correction_priority", {"correction_priority": 1.5}),
    ("correction_priority", {"correction_priority": None}),
    ("source_url", {"source_url": f"http://{CANARY}/" + "x" * 5000}),
    ("source_url", {"source_url": 3}),
    ("user_feedback", {"user_feedback": CANARY * 5000}),
    ("timestamp", {"timestamp": "yesterday"}),
    ("timestamp", {"timestamp": 1722520920}),
    ("timestamp", {"timestamp": "9999-12-31T23:59:59Z"}),
    ("timestamp", {"timestamp": "0001-01-01T00:00:00+00:00"}),
    ("timestamp", {"timestamp": "9999-12-31T23:59:59-05:00"}),
    ("example_id", {"example_id": CANARY}),
    ("source_tag", {"tag": "t" * 200}),
    ("source_id", {"source_id": 5}),
]


@pytest.mark.req("J8", "J10", "J11", "J12", "J13", "J17")
@pytest.mark.parametrize(
    ("field", "given"), REFUSED, ids=[f"{index}-{field}" for index, (field, _) in enumerate(REFUSED)]
)
def test_what_does_not_fit_is_refused_with_field_and_remedy_and_without_its_value(
    field: str, given: dict[str, Any]
) -> None:
    with pytest.raises(InvalidExample) as refused:
        check(**given)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field} ")
    assert refused.value.remedy
    assert "anna" not in str(refused.value)
    assert refused.value.__cause__ is None  # a chained error would carry the value into a log


@pytest.mark.req("J8")
def test_an_unknown_agent_is_told_which_are_known() -> None:
    with pytest.raises(UnknownAgent, match="analyst, scout"):
        check(agent_name="scuot")


@pytest.mark.req("J11")
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("good", "good"), (3, 3), (0.25, 0.25), (True, True), (None, None), ([1, "a"], [1, "a"]), ({"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"entities": [(0, 5, "ORG")]}, {"entities": [[0, 5, "ORG"]]}),
        (np.int64(7), 7), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("x"), "x"), (np.array([1, 2]), [1, 2]),
        (datetime(2025, 8, 1, tzinfo=UTC), "2025-08-01T00:00:00+00:00"), (Decimal("0.5"), 0.5), (Colour.RED, "red"),
        (UUID(int=1), str(UUID(int=1))), ({1: "one"}, {"1": "one"}), (deep(5), deep(5)),
    ],
)  # fmt: skip
def test_labels_become_plain_json(given: Any, stored: Any) -> None:
    made = check(expected_output=given).expected_output
    assert made == stored
    assert type(made) is type(stored)


@pytest.mark.req("J12", "J13", "J17")
def test_numbers_are_read_from_strings_and_numpy() -> None:
    made = check(uncertainty_score="0.7", importance_score=np.float32(0.25), correction_priority="3")
    assert (made.uncertainty, made.importance, made.priority) == (0.7, 0.25, Priority.CRITICAL)
    assert check(correction_priority=np.int64(2)).priority is Priority.HIGH
    assert check(uncertainty_score=0).uncertainty == 0.0
    assert check(uncertainty_score=1).uncertainty == 1.0


@pytest.mark.req("J13", "J16", "J23")
def test_defaults_are_those_of_the_predecessor() -> None:
    made = check()
    assert (made.importance, made.source_url, made.user_feedback, made.priority) == (0.5, "", None, Priority.LOW)


@pytest.mark.req("J15")
def test_times_are_utc_and_a_backfilled_one_stays() -> None:
    moment = datetime(2025, 8, 1, 16, 2, tzinfo=timezone(timedelta(hours=2)))
    assert check(timestamp=moment).created_at == datetime(2025, 8, 1, 14, 2, tzinfo=UTC)
    assert check(timestamp=moment).created_at.tzinfo is UTC
    assert check(timestamp=datetime(2025, 8, 1)).created_at == datetime(2025, 8, 1, tzinfo=UTC)
    assert check(timestamp="2025-08-01T14:02:00Z").created_at == datetime(2025, 8, 1, 14, 2, tzinfo=UTC)
    assert abs(check().created_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_ids_stay_and_texts_are_not_touched() -> None:
    identity = uuid4()
    made = check(example_id=str(identity), input_text="  Zürich 🎉 \n")
    assert (made.example_id, made.input_text) == (identity, "  Zürich 🎉 \n")
    assert check().example_id != check().example_id


@pytest.mark.req("J10")
def test_the_longest_text_is_the_tasks() -> None:
    assert len(check(input_text="x" * 30, max_length=30).input_text) == 30
    with pytest.raises(InvalidExample, match="31 characters, more than 30"):
        check(input_text="x" * 31, max_length=30)


def test_a_list_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(InvalidExample, match="nested"):
        check(expected_output=ring)
