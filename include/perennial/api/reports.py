"""Reports of quality issues over HTTP: each is checked and kept, and one bad report spoils no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from uuid import UUID

from perennial.domain.words import ReportResult
from perennial.errors import InvalidExample
from perennial.guard.keys import deployment_key
from perennial.rollout.reports import report_of
from perennial.rollout.rows import Report
from perennial.serving.store import Recorded

REJECTED = "rejected"


@dataclass(frozen=True)
class Told:
    """What became of each report, in order."""

    items: tuple[dict[str, Any], ...] = field(default=())

    @property
    def status_code(self) -> int:
        """200 when all were taken, 422 when none was, else 207."""
        rejected = sum(item["status"] == REJECTED for item in self.items)
        return 200 if not rejected else 422 if rejected == len(self.items) else 207

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        words = (ReportResult.ADDED.value, ReportResult.DUPLICATE.value, REJECTED)
        counts = {word: sum(item["status"] == word for item in self.items) for word in words}
        return {**counts, "results": list(self.items)}


class Reports:
    """Takes reports; ``keep`` writes one durably, ``find`` remembers answers of this process that may not be written down
    yet. Raises StoreUnavailable when PostgreSQL is away: send them again."""

    def __init__(
        self, keep: Callable[[Report], ReportResult], find: Callable[[UUID], Recorded | None],
        key: bytes | None = None,
    ) -> None:  # fmt: skip
        self._keep, self._find, self._given_key = keep, find, key

    @cached_property
    def _key(self) -> bytes:
        return self._given_key or deployment_key()

    def take(self, given: Sequence[Any]) -> Told:
        """Check and keep each."""
        return Told(tuple({"index": index, **self._one(one)} for index, one in enumerate(given)))

    def _one(self, one: Any) -> dict[str, Any]:
        try:
            if not isinstance(one, dict):
                raise InvalidExample("body", "is not an object", "send {...}")
            result = self._keep(self._with_version(report_of(one, key=self._key)))
            if result is ReportResult.UNKNOWN:
                name = "prediction_id" if one.get("prediction_id") is not None else "version"
                raise InvalidExample(name, "is not known for this agent", "send what /v1/predict answered with")
        except InvalidExample as error:
            return {"status": REJECTED, "field": error.field, "reason": str(error)}
        return {"status": result.value}

    def _with_version(self, report: Report) -> Report:
        near = self._find(report.prediction_id) if report.prediction_id is not None else None
        if near is None or near.answer.agent != report.agent:
            return report
        return replace(report, version=near.answer.version)
