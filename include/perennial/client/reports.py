"""Tell Perennial that an answer was bad, when you do not know the right one."""

from __future__ import annotations

from typing import Any


def report_quality_issue(
    agent_name: str,
    kind: str,
    *,
    prediction_id: str | None = None,
    version: str | None = None,
    reporter: str | None = None,
    report_id: str | None = None,
) -> bool:
    """Report one answer (``prediction_id``) or a version as a whole; True when it is new, durable when it returns.

    ``kind``: wrong, harmful, unusable, slow or other. ``reporter`` tells people apart (``Rollout.reports_revert`` of them within
    the window revert the version) and is kept as a keyed digest alone; hosts that do not share a home folder need
    PERENNIAL_REDACTION_KEY, or one person counts once per host. Without it all reports count as one person's. When you know the
    right answer, send a correction instead. Raises InvalidExample, StoreUnavailable.
    """
    from perennial.client.connection import connection
    from perennial.domain.words import ReportResult
    from perennial.errors import InvalidExample
    from perennial.guard.keys import deployment_key
    from perennial.rollout.reports import report_of
    from perennial.rollout.store import PostgresRollouts

    given: dict[str, Any] = {
        "agent": agent_name, "kind": kind, "prediction_id": prediction_id, "version": version, "reporter": reporter,
        "report_id": report_id,
    }  # fmt: skip
    report = report_of({name: value for name, value in given.items() if value is not None}, key=deployment_key())
    result = PostgresRollouts(connection().database).report(report)
    if result is ReportResult.UNKNOWN:
        name = "version" if prediction_id is None else "prediction_id"
        raise InvalidExample(name, "is not known for this agent", "send what the gateway answered with")
    return result is ReportResult.ADDED
