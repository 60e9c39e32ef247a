"""Records under any accepted field name, checked with what the fleet knows."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.domain.words import Source
from perennial.errors import InvalidExample, UnknownAgent
from perennial.ingest.digests import plain, plain_digest
from perennial.ingest.door import Door
from perennial.ingest.results import TaskLimits


class Fleet:
    def __init__(self) -> None:
        self.asked = 0
        score = TaskLimits(name="quality", kind="score", labels=None, max_length=20)
        topic = TaskLimits(name="topic", kind="classification", labels=None, max_length=2000)
        self.known = {"scout": {"quality": score, "topic": topic, "subject": topic}}

    def fleet(self) -> dict[str, dict[str, TaskLimits]]:
        self.asked += 1
        return dict(self.known)


def record(**fields: Any) -> dict[str, Any]:
    return {"agent": "scout", "task": "topic", "text": "Rates fell.", "label": "economy", **fields}


def test_every_accepted_name_means_the_same() -> None:
    door = Door(Fleet())
    short = door.check_record(record(priority="2", importance=1, uncertainty="0.25", url="u", feedback="f", tag="qa"))
    long = door.check_record(
        {
            "agent_name": "scout", "task_type": "topic", "input_text": "Rates fell.", "expected_output": "economy",
            "correction_priority": 2, "importance_score": 1.0, "uncertainty_score": 0.25, "source_url": "u",
            "user_feedback": "f", "source_tag": "qa", "something_else": object(),
        }
    )  # fmt: skip
    fields = ("agent", "task", "input_text", "expected_output", "priority", "importance", "uncertainty", "source_url",
              "user_feedback", "tag")  # fmt: skip
    assert [getattr(short, field) for field in fields] == [getattr(long, field) for field in fields]


@pytest.mark.parametrize("name", ["confidence", "confidence_score"])
def test_confidence_stands_for_uncertainty(name: str) -> None:
    door = Door(Fleet())
    assert door.check_record(record(**{name: "0.9"})).uncertainty == 0.1
    assert door.check_record(record(**{name: 0.4})).uncertainty == 0.6
    assert door.check_record(record(**{name: 0.9, "uncertainty": 0.3})).uncertainty == 0.3
    assert door.check_record(record()).uncertainty == 0.5
    with pytest.raises(InvalidExample, match=name):
        door.check_record(record(**{name: 1.5}))


def test_missing_and_doubled_fields_are_named() -> None:
    door = Door(Fleet())
    with pytest.raises(InvalidExample, match="input_text is missing"):
        door.check_record({"agent": "scout", "task": "topic"})
    with pytest.raises(InvalidExample, match="as text and as input"):
        door.check_record(record(input="x"))
    made = door.check_record(
        {"text": "x"}, source=Source.IMPORT, defaults={"agent_name": "scout", "task_type": "topic"}
    )
    assert (made.agent, made.source, made.expected_output) == ("scout", Source.IMPORT, None)


def test_scores_sent_as_strings_become_numbers_and_labels_do_not() -> None:
    door = Door(Fleet())
    assert door.check_record(record(task="quality", label="0.75")).expected_output == 0.75
    assert door.check_record(record(label="7")).expected_output == "7"
    own = door.check_record(record(task="quality", label="0.70", predicted_output="0.7"))
    assert own.predicted_output == own.expected_output == 0.7  # so that it is seen to be the model's own answer


@pytest.mark.req("J10")
def test_each_task_has_its_longest_text() -> None:
    door = Door(Fleet())
    assert door.check_record(record(task="subject", text="x" * 2000))
    with pytest.raises(InvalidExample, match="more than 20"):
        door.check_record(record(task="quality", label=0.5, text="x" * 21))


def test_the_fleet_is_remembered_and_asked_again_for_a_stranger() -> None:
    fleet = Fleet()
    door = Door(fleet, max_age=1000)
    for _ in range(5):
        door.check_record(record())
    assert fleet.asked == 1
    with pytest.raises(UnknownAgent):
        door.check_record(record(agent="critic"))
    fleet.known["critic"] = {}
    assert door.check_record(record(agent="critic")).agent == "critic"


def test_many_records_of_a_stranger_cost_few_looks_at_the_fleet() -> None:
    fleet, at = Fleet(), [100.0]
    door = Door(fleet, max_age=1000, clock=lambda: at[0])
    for number in range(5000):
        with pytest.raises(UnknownAgent):
            door.check_record(record(agent=f"critic{number % 3}"))
    assert fleet.asked <= 3
    fleet.known["critic0"] = {}  # it joined while strangers were asked for
    at[0] += 1.0
    assert door.check_record(record(agent="critic0")).agent == "critic0"


@pytest.mark.parametrize(
    ("one", "two"),
    [("Rates fell.", " rates\n\tFELL. "), ("ZÜRICH", "zÜrich"), ("a\u00a0b", "A\u00a0B"), ("", " \x0b\x0c")],
)
def test_inputs_that_differ_in_ascii_case_and_blanks_are_the_same(one: str, two: str) -> None:
    assert plain(one) == plain(two)
    assert plain_digest(one) == plain_digest(two)


@pytest.mark.parametrize(("one", "two"), [("a b", "ab"), ("ä", "a"), ("a\u00a0b", "a b"), ("Ä", "ä")])
def test_other_inputs_are_not(one: str, two: str) -> None:
    assert plain_digest(one) != plain_digest(two)
