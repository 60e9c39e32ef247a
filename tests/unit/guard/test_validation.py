"""The expectations on a batch: each can fail, none lets a value out."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.words import TaskKind
from perennial.errors import GuardUnavailable
from perennial.guard import validation
from perennial.guard.expectations import Limits
from perennial.guard.validation import MOST_IDS, ValidationReport, validate_batch

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LABELS = ("world", "sports", "business")
CANARY = "canary-5c1e"


def _rows(count: int = 60, label: Any = None) -> list[TrainingRow]:
    return [
        TrainingRow(
            example_id=UUID(int=number + 1), task="topic", text=f"{CANARY} text {number}",
            label=LABELS[number % 3] if label is None else label, created_at=NOW - timedelta(days=number % 30),
        )
        for number in range(count)
    ]  # fmt: skip


def _validate(
    rows: list[TrainingRow], *, kind: TaskKind = TaskKind.CLASSIFICATION, labels: Any = LABELS
) -> ValidationReport:
    return validate_batch(rows, task="topic", kind=kind, labels=labels, max_length=100, now=NOW)


def _with(rows: list[TrainingRow], place: int, **changes: Any) -> list[TrainingRow]:
    return [*rows[:place], replace(rows[place], **changes), *rows[place + 1 :]]


@pytest.mark.req("K67")
def test_a_sound_batch_succeeds_and_says_what_was_checked() -> None:
    report = _validate(_rows())
    assert report.success, report.failed()
    assert report.rows == 60
    assert {check.name for check in report.checks} == {
        "columns_present", "row_ids_unique", "text_present", "text_type", "text_not_blank", "text_length", "text_repeats",
        "label_present", "label_form", "label_known", "class_balance", "freshness",
    }  # fmt: skip
    assert {check.name: check.observed for check in report.checks}["class_balance"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"text": 7}, "text_type"),
        ({"text": None}, "text_present"),
        ({"text": "  \n"}, "text_not_blank"),
        ({"label": None}, "label_present"),
        ({"label": 3}, "label_form"),
        ({"label": "politics " + CANARY}, "label_known"),
        ({"example_id": UUID(int=1)}, "row_ids_unique"),
    ],
)
def test_one_bad_row_stops_the_batch_and_is_named(changes: dict[str, Any], failed: str) -> None:
    rows = _with(_rows(), 5, **changes)
    report = _validate(rows)
    check = next(check for check in report.checks if check.name == failed)
    assert not report.success
    assert not check.success
    assert str(rows[5].example_id) in check.row_ids
    assert check.unexpected_count >= 1


def test_long_and_repeated_texts_stop_it_beyond_their_share() -> None:
    rows = _rows()
    for share, success in ((0.03, True), (0.2, False)):
        some = int(60 * share)
        long = [replace(row, text="x" * 401 + str(place)) if place < some else row for place, row in enumerate(rows)]
        twins = [replace(row, text="twin") if place < some + 1 else row for place, row in enumerate(rows)]
        assert ("text_length" not in _validate(long).failed()) is success
        assert ("text_repeats" not in _validate(twins).failed()) is success


@pytest.mark.req("K67")
def test_balance_and_freshness_are_judged_from_fifty_rows_on() -> None:
    for count, judged in ((49, False), (50, True)):
        one_label = _validate(_rows(count, label="world"))
        stale = _validate([replace(row, created_at=NOW - timedelta(days=5000)) for row in _rows(count)])
        assert one_label.success is not judged
        assert stale.success is not judged
        assert (one_label.failed(), stale.failed()) == ((("class_balance",), ("freshness",)) if judged else ((), ()))


def test_rows_of_the_future_are_not_fresh() -> None:
    assert "freshness" in _validate([replace(row, created_at=NOW + timedelta(days=9)) for row in _rows()]).failed()


def test_a_naive_time_counts_as_utc_and_a_missing_one_as_now() -> None:
    assert _validate([replace(row, created_at=datetime(2026, 5, 1)) for row in _rows()]).success
    assert _validate([replace(row, created_at=None) for row in _rows()]).success


def test_labels_that_are_learnt_need_a_form_only() -> None:
    assert _validate(_with(_rows(), 0, label="a new topic"), labels=None).success
    assert _validate(_with(_rows(), 0, label="jane@corp.com"), labels=None).failed() == ("label_form",)


def test_scores_lie_between_nought_and_one() -> None:
    rows = [replace(row, label=place / 60) for place, row in enumerate(_rows())]
    assert _validate(rows, kind=TaskKind.SCORE, labels=None).success
    assert _validate(_with(rows, 3, label=1.5), kind=TaskKind.SCORE, labels=None).failed() == ("score_range",)
    assert "label_form" in _validate(_with(rows, 3, label="0.5"), kind=TaskKind.SCORE, labels=None).failed()
    assert "label_form" in _validate(_with(rows, 3, label=float("nan")), kind=TaskKind.SCORE, labels=None).failed()
    assert (
        "class_balance"
        in _validate([replace(row, label=0.5) for row in rows], kind=TaskKind.SCORE, labels=None).failed()
    )


def test_a_small_batch_is_judged_by_its_rows() -> None:
    assert _validate(_rows(1)).success
    assert _validate(_rows(3)).success
    two_labels_for_one_text = [replace(row, text="same") for row in _rows(2)]
    assert _validate(two_labels_for_one_text).failed() == ("text_repeats",)


def test_an_empty_batch_does_not_pass() -> None:
    report = _validate([])
    assert not report.success
    assert report.failed() == ("rows_present",)


@pytest.mark.req("K67")
def test_a_report_holds_no_value() -> None:
    rows = _rows()
    for place, changes in enumerate(
        (
            {"text": f"{CANARY}" * 40},
            {"text": f"\t{CANARY}"},
            {"label": CANARY},
            {"label": [CANARY]},
            {"text": {CANARY: 1}},
        )
    ):
        rows = _with(rows, place, **changes)
    rows = [replace(row, text=f"{CANARY} twin") if place > 30 else row for place, row in enumerate(rows)]
    report = _validate(rows)
    text = json.dumps(report.as_dict())
    assert not report.success
    assert len(report.failed()) >= 4
    assert CANARY not in text
    assert not [label for label in LABELS if label in text]
    assert json.loads(text)["checks"][0]["row_ids"] == []


def test_row_ids_are_capped_and_counts_are_not() -> None:
    report = _validate([replace(row, label="nowhere") for row in _rows(80)])
    check = next(check for check in report.checks if check.name == "label_known")
    assert (check.unexpected_count, len(check.row_ids)) == (80, MOST_IDS)


def test_limits_can_be_set() -> None:
    report = validate_batch(
        _rows(60, label="world"), task="topic", kind=TaskKind.CLASSIFICATION, labels=LABELS, max_length=100, now=NOW,
        limits=Limits(dominant=1.0),
    )  # fmt: skip
    assert report.success


@pytest.mark.req("K67")
def test_a_suite_that_cannot_be_computed_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "great_expectations.expectations", None)
    with pytest.raises(GuardUnavailable, match="could not be computed") as caught:
        _validate(_rows())
    assert CANARY not in str(caught.value)


def test_an_expectation_that_raised_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    import great_expectations.expectations as gxe

    real = validation.suite

    def with_a_missing_column(**settings: Any) -> Any:
        named = real(**settings)
        return [*named, type(named[0])("nowhere", gxe.ExpectColumnValuesToBeUnique(column="nowhere"))]

    monkeypatch.setattr(validation, "suite", with_a_missing_column)
    with pytest.raises(GuardUnavailable, match="nowhere"):
        _validate(_rows())


def test_it_needs_no_network_and_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("validation must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    validation._context.cache_clear()
    before = {thread.name for thread in threading.enumerate()}
    assert _validate(_rows()).success
    assert {thread.name for thread in threading.enumerate()} <= before
    assert not list(validation._context().data_sources.all())


def test_a_forked_child_can_validate() -> None:
    assert _validate(_rows()).success  # the parent's context is warm
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(_validate(_with(_rows(), 3, label="nowhere")).failed()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert json.load(answer) == ["label_known"]
    os.waitpid(child, 0)
