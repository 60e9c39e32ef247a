"""From what a caller sends to one report of a quality issue: checked, without text, its author a keyed digest."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from perennial.domain.words import ReportKind
from perennial.errors import InvalidExample
from perennial.rollout.rows import Report

_KNOWN = frozenset({"agent", "agent_name", "kind", "reporter", "prediction_id", "version", "report_id"})
_LONGEST = 200
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # neither UTF-8 nor PostgreSQL can hold these
_ANONYMOUS = b"anonymous"  # reports without an author count as one person's


def report_of(fields: Mapping[str, Any], *, key: bytes) -> Report:
    """Check one report. InvalidExample names the field and the remedy, and never repeats a value.

    ``reporter`` tells people apart and is kept as an HMAC under ``key`` alone. A person who reports one answer twice sends one
    report. Text is refused: it could be personal data, and a right answer belongs into a correction.

    >>> report = report_of({"agent": "scout", "version": "1.0.1", "kind": "wrong", "reporter": "ana"}, key=b"k")
    >>> report.kind.value, report.version, len(report.reporter)
    ('wrong', '1.0.1', 16)
    """
    if fields.keys() - _KNOWN:  # not named: whoever puts a text where a field's name belongs would read it in a log
        told = f"holds a field that is not one of {', '.join(sorted(_KNOWN))}"
        raise InvalidExample("report", told, "send the right answer as a correction, and no text here")
    agent = _text(fields, "agent" if "agent" in fields else "agent_name")
    kind = _text(fields, "kind")
    if kind not in set(ReportKind):
        raise InvalidExample("kind", "is not a kind of issue", f"send one of {', '.join(ReportKind)}")
    prediction, version = fields.get("prediction_id"), fields.get("version")
    if (prediction is None) == (version is None):
        raise InvalidExample("prediction_id", "or version must be there, and one alone", "send the id of the answer")
    reporter = _digest(agent, fields, key)
    answer = None if prediction is None else _uuid(prediction, "prediction_id")
    given = fields.get("report_id")
    if given is not None:
        identity = _uuid(given, "report_id")
    elif answer is not None:
        identity = uuid5(NAMESPACE_URL, f"perennial:report:{answer}:{reporter.hex()}:{kind}")
    else:
        identity = uuid4()
    return Report(
        report_id=identity, agent=agent, kind=ReportKind(kind), reporter=reporter, prediction_id=answer,
        version=None if version is None else _text(fields, "version"),
    )  # fmt: skip


def _digest(agent: str, fields: Mapping[str, Any], key: bytes) -> bytes:
    who = _ANONYMOUS if fields.get("reporter") is None else _text(fields, "reporter").encode()
    return hmac.new(key, agent.encode() + b"\0" + who, hashlib.sha256).digest()[:16]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise InvalidExample(name, "is missing", f"send {name}")
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST or _UNSTORABLE.search(value):
        raise InvalidExample(
            name, "is not a short text", f"send a string of at most {_LONGEST} characters that UTF-8 knows"
        )
    return value


def _uuid(value: Any, name: str) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError as error:
        raise InvalidExample(name, "is not an id", "send the UUID that you were given") from error
