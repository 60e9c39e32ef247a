"""One record against its task."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.domain.words import TaskKind
from perennial.guard.records import RecordReason, check_record

LABELS = ("world", "sports")


def _check(text: Any, label: Any, *, kind: TaskKind = TaskKind.CLASSIFICATION, labels: Any = LABELS) -> str | None:
    reason = check_record(text, label, kind=kind, labels=labels, max_length=50)
    return None if reason is None else reason.value


@pytest.mark.req("J10")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rates fell.", None),
        ("Zürich 東京\ttab\nline", None),
        ("", "empty_text"),
        (" \n\u00a0", "empty_text"),
        (None, "text_type"),
        (b"bytes", "text_type"),
        ("x" * 50, None),
        ("x" * 51, "too_long"),
        ("nul \0", "control_characters"),
        ("escape \x1b[31m", "control_characters"),
        ("half \ud83d", "control_characters"),
    ],
)
def test_texts(text: Any, reason: str | None) -> None:
    assert _check(text, "world") == reason


@pytest.mark.req("J10")
@pytest.mark.parametrize(
    ("label", "closed", "free"),
    [
        ("world", None, None),
        ("World", "unknown_label", None),
        ("sci/tech", "unknown_label", None),
        (None, None, None),
        (1, "label_type", "label_type"),
        ({"label": "world"}, "label_type", "label_type"),
        ("", "unknown_label", "label_form"),
        ("two\nlines", "unknown_label", "label_form"),
        ("jane@corp.com", "unknown_label", "label_form"),
        ("call 212-555-0142", "unknown_label", "label_form"),
        ("x" * 129, "unknown_label", "label_form"),
    ],
)
def test_labels(label: Any, closed: str | None, free: str | None) -> None:
    assert _check("text", label) == closed
    assert _check("text", label, labels=None) == free


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (0, None), (1, None), (0.5, None), (None, None), (1.01, "score_out_of_range"), (-0.1, "score_out_of_range"),
        (float("nan"), "label_type"), (float("inf"), "label_type"), (True, "label_type"), ("0.5", "label_type"), ([0.5], "label_type"),
    ],
)  # fmt: skip
def test_scores(score: Any, reason: str | None) -> None:
    assert _check("text", score, kind=TaskKind.SCORE, labels=None) == reason


def test_reasons_are_a_closed_list() -> None:
    assert {reason.value for reason in RecordReason} == {
        "text_type", "empty_text", "too_long", "control_characters", "label_type", "label_form", "unknown_label",
        "score_out_of_range",
    }  # fmt: skip
