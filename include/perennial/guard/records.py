"""What makes one record unusable for its task, decided at admission. Pure; reasons are codes and never hold a value."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum

from perennial.domain.words import JSON, TaskKind

LONGEST_LABEL = 128  # characters

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")  # tab, line and page breaks are text
_DIGITS = re.compile(r"\d")
_MOST_DIGITS = 5  # six digits or more, or an @, are no name of a class but somebody's number or address


class RecordReason(StrEnum):
    """Why a record stands in quarantine."""

    TEXT_TYPE = "text_type"
    EMPTY_TEXT = "empty_text"
    TOO_LONG = "too_long"
    CONTROL_CHARACTERS = "control_characters"
    LABEL_TYPE = "label_type"
    LABEL_FORM = "label_form"
    UNKNOWN_LABEL = "unknown_label"
    SCORE_OUT_OF_RANGE = "score_out_of_range"


def check_record(
    text: str, label: JSON, *, kind: TaskKind, labels: Sequence[str] | None, max_length: int
) -> RecordReason | None:
    """The first reason against a record, or None when it may be redacted and trained on.

    ``label`` None means unlabelled, which is no fault. ``labels`` None: any short name is a label. Lengths are characters.

    >>> check_record("Rates fell", "business", kind=TaskKind.CLASSIFICATION, labels=("sports",), max_length=100).value
    'unknown_label'
    >>> check_record("Rates fell", 0.5, kind=TaskKind.SCORE, labels=None, max_length=100) is None
    True
    """
    reason = _text_reason(text, max_length)
    if reason is not None or label is None:
        return reason
    if kind is TaskKind.SCORE:
        return _score_reason(label)
    return _label_reason(label, labels)


def is_label(label: JSON) -> bool:
    """Whether a value can name a class: one line of up to 128 characters, no @, fewer than six digits.

    >>> is_label("sci/tech"), is_label("jane@corp.com"), is_label(" ")
    (True, False, False)
    """
    return (
        isinstance(label, str)
        and bool(label.strip())
        and len(label) <= LONGEST_LABEL
        and not any(character in label for character in "@\n\r")
        and _CONTROL.search(label) is None
        and len(_DIGITS.findall(label)) <= _MOST_DIGITS
    )


def is_score(value: JSON) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text_reason(text: object, max_length: int) -> RecordReason | None:
    if not isinstance(text, str):
        return RecordReason.TEXT_TYPE
    if not text.strip():
        return RecordReason.EMPTY_TEXT
    if len(text) > max_length:
        return RecordReason.TOO_LONG
    return RecordReason.CONTROL_CHARACTERS if _CONTROL.search(text) else None


def _score_reason(value: JSON) -> RecordReason | None:
    if not is_score(value):
        return RecordReason.LABEL_TYPE
    return None if 0.0 <= value <= 1.0 else RecordReason.SCORE_OUT_OF_RANGE


def _label_reason(label: JSON, labels: Sequence[str] | None) -> RecordReason | None:
    if not isinstance(label, str):
        return RecordReason.LABEL_TYPE
    if labels is not None:
        return None if label in labels else RecordReason.UNKNOWN_LABEL
    return None if is_label(label) else RecordReason.LABEL_FORM
