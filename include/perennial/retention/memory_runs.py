"""Runs of DAGs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime


class MemoryRuns:
    """The twin in memory: run -> when it ended, None while it runs."""

    def __init__(self, runs: Mapping[tuple[str, str], datetime | None] | None = None) -> None:
        self.runs = dict(runs or {})
        self.broken: set[tuple[str, str]] = set()  # those of them that failed

    def old(self, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """See ``RunHistory.old``."""
        newest = dict(self.runs.keys())  # the last one of each DAG that came in
        ended = sorted((dag, at, run) for (dag, run), at in self.runs.items() if at is not None and at < before)
        return [(dag, run) for dag, _, run in ended if newest[dag] != run][:limit]

    def delete(self, runs: Sequence[tuple[str, str]]) -> int:
        """See ``RunHistory.delete``."""
        return sum(self.runs.pop(run, None) is not None for run in runs)

    def failed(self, since: datetime) -> Sequence[tuple[str, str]]:
        """See ``RunHistory.failed``."""
        ended = sorted((at, dag, run) for (dag, run), at in self.runs.items() if at is not None)
        newest = {dag: (at, run) for at, dag, run in ended}
        return [(dag, run) for dag, (at, run) in sorted(newest.items()) if at >= since and (dag, run) in self.broken]

    def start(self, dag: str, run: str) -> None:
        """See ``RunHistory.start``."""
        self.runs.setdefault((dag, run), None)
