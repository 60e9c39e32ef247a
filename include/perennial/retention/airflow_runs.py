"""Old and failed runs of our own DAGs, through Airflow's REST API: a deleted run takes its task instances and XComs along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from perennial.settings import Settings
from perennial.storage.airflow_link import AirflowLink

_PAGE = 100
_ENDED = ("success", "failed")


class RunHistory(Protocol):
    """Runs of the DAGs that carry our tag. Raises StoreUnavailable when Airflow is away or refuses."""

    def old(self, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """DAG and run id of runs that ended before that moment, oldest first per DAG, at most ``limit``.

        The newest run of a DAG is never among them: its schedule goes on from there, as `airflow db clean` has it too.
        """
        ...

    def delete(self, runs: Sequence[tuple[str, str]]) -> int:
        """Delete them with everything that hangs on them; returns how many went. One that is gone already is no error."""
        ...

    def failed(self, since: datetime) -> Sequence[tuple[str, str]]:
        """DAG and run id of the newest ended run of each DAG, where it failed after that moment; by DAG."""
        ...

    def start(self, dag: str, run: str) -> None:
        """Start a run of this id; one that is there already is no error."""
        ...


class AirflowRuns:
    """Over HTTP as the machine user of the settings (Airflow 3.3: ``/api/v2``, bulk deletion of DAG runs)."""

    def __init__(self, settings: Settings) -> None:
        self._link = AirflowLink(settings, purpose="delete DAG runs")

    def old(self, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """See ``RunHistory.old``."""
        found: list[tuple[str, str]] = []
        for dag in self._dags():
            newest = {one["dag_run_id"] for one in self._runs(dag, {"order_by": "-id", "limit": 1})}
            offset = 0
            while len(found) < limit:
                aged = {"end_date_lt": before.isoformat(), "state": _ENDED, "order_by": "end_date"}
                page = self._runs(dag, {**aged, "limit": _PAGE, "offset": offset})
                found += [(dag, one["dag_run_id"]) for one in page if one["dag_run_id"] not in newest]
                offset += len(page)
                if len(page) < _PAGE:
                    break
        return found[:limit]

    def failed(self, since: datetime) -> Sequence[tuple[str, str]]:
        """See ``RunHistory.failed``. Asks for failures of all DAGs at once, then for the newest run of those that have one.

        A full page may hide others behind a DAG that fails every minute: then each of our DAGs is asked.
        """
        lately = {"end_date_gte": since.isoformat(), "order_by": "-end_date"}
        page = self._runs("~", {**lately, "state": "failed", "limit": _PAGE})
        suspects = {str(one["dag_id"]) for one in page}
        ours = self._dags() if suspects else []
        found = []
        for dag in ours if len(page) == _PAGE else sorted(suspects.intersection(ours)):
            newest = self._runs(dag, {**lately, "state": _ENDED, "limit": 1})
            found += [(dag, str(one["dag_run_id"])) for one in newest if one["state"] == "failed"]
        return found

    def start(self, dag: str, run: str) -> None:
        """See ``RunHistory.start``."""
        body = {"dag_run_id": run, "logical_date": None}
        self._link.call("POST", f"/api/v2/dags/{quote(dag, safe='')}/dagRuns", body, known=409)

    def _runs(self, dag: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        path = f"/api/v2/dags/{quote(dag, safe='~')}/dagRuns?{urlencode(query, doseq=True)}"
        return self._link.listed(path, "dag_runs")

    def delete(self, runs: Sequence[tuple[str, str]]) -> int:
        """See ``RunHistory.delete``."""
        by_dag: dict[str, list[str]] = {}
        for dag, run in runs:
            by_dag.setdefault(dag, []).append(run)
        return sum(self._delete(dag, part) for dag, ids in by_dag.items() for part in _chunks(ids, _PAGE))

    def _delete(self, dag: str, runs: Sequence[str]) -> int:
        entities = [{"dag_id": dag, "dag_run_id": run} for run in runs]
        action = {"action": "delete", "entities": entities, "action_on_non_existence": "skip"}
        answer = self._link.call("PATCH", f"/api/v2/dags/{quote(dag, safe='')}/dagRuns", {"actions": [action]})
        return len((answer.get("delete") or {}).get("success", ()))

    def _dags(self) -> list[str]:
        found: list[str] = []
        while True:
            # stale: the DAGs of an agent that left the fleet have old runs too
            query = urlencode({"tags": "perennial", "exclude_stale": "false", "limit": _PAGE, "offset": len(found)})
            page = self._link.listed(f"/api/v2/dags?{query}", "dags")
            found += [one["dag_id"] for one in page]
            if len(page) < _PAGE:
                return sorted(found)


def _chunks(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
