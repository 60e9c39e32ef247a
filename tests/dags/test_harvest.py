"""One source that cannot be read keeps the rest of the harvest from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import TriggerRule
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

FILE = Path(__file__).resolve().parents[2] / "dags" / "harvest.py"


@pytest.fixture(scope="module")
def dag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(FILE)).dags["harvest"]


@pytest.fixture
def finish(dag: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Runs the last task on what the tasks above it left; says what it did and noted."""
    done: list[str] = []

    def run(names: list[str] | None, drained: list[dict[str, object]] | None, admitted: Any = None) -> Any:
        from perennial.flows import harvest, sealing

        last = dag.get_task("guard_and_relay").python_callable
        known = last.__globals__
        monkeypatch.setitem(known, "task_ports", lambda admit=False: None)
        monkeypatch.setitem(known, "get_current_context", dict)
        monkeypatch.setitem(known, "note_run", lambda context, note: done.append(note))
        monkeypatch.setattr(harvest, "admit_waiting", lambda ports: done.append("admit") or admitted or {})
        monkeypatch.setattr(harvest, "relay_outbox", lambda ports: done.append("relay") or {"relayed": 0})
        monkeypatch.setattr(sealing, "seal", lambda ports: done.append("seal"))
        return last(names, drained)

    run.done = done  # type: ignore[attr-defined]
    return run


def test_the_last_task_runs_whatever_the_sources_did(dag: Any) -> None:
    last = dag.get_task("guard_and_relay")
    assert last.trigger_rule == TriggerRule.ALL_DONE
    assert last.downstream_task_ids == set()  # the only leaf: it alone decides the run's state


@pytest.mark.parametrize(
    ("names", "drained"),
    [(["east", "west"], [{"source": "west", "added": 1}]), (["inbox"], []), (["inbox"], None), (None, None)],
)
def test_after_a_source_that_failed_all_else_is_done_and_the_run_fails(
    finish: Any, names: list[str] | None, drained: list[dict[str, object]] | None
) -> None:
    with pytest.raises(AirflowFailException, match="a source could not be read"):
        finish(names, drained, {"scout": {"ready": 2}})
    assert finish.done[:3] == ["admit", "relay", "seal"]
    assert finish.done[3] == ("west: 1 added; scout: 2 ready" if drained else "scout: 2 ready")


def test_when_every_source_was_read_the_run_ends_well_or_skipped(finish: Any) -> None:
    finish(["east"], [{"source": "east", "added": 3}])
    assert finish.done == ["admit", "relay", "seal", "east: 3 added"]
    for nothing in ([], None):
        with pytest.raises(AirflowSkipException):
            finish([], nothing)


def test_a_drain_says_whose_records_it_counts(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from perennial.flows import harvest

    drain = dag.get_task("drain").python_callable
    monkeypatch.setitem(drain.__globals__, "task_ports", lambda: None)
    monkeypatch.setattr(harvest, "drain", lambda ports, source: {"added": 1})
    assert drain("inbox") == {"added": 1, "source": "inbox"}
