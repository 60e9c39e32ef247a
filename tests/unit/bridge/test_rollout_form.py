"""A person's decision in the form of ``rollout_<agent>``, and what the tasks do with a rollout that waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from perennial.bridge import operators, steps
from perennial.domain.words import RolloutDecision, RolloutState
from perennial.errors import RolloutError
from perennial.flows import rollout
from tests.rollout_world import RolloutWorld, make_rollout_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> RolloutWorld:
    made = make_rollout_world()
    monkeypatch.setattr(steps, "task_ports", lambda **_: made.ports)
    monkeypatch.setattr(steps, "note_run", lambda context, text: notes(made).append(text))
    made.champion("1.0.0")
    return made


def notes(world: RolloutWorld) -> list[str]:
    return world.__dict__.setdefault("notes", [])


def _context(**form: Any) -> dict[str, Any]:
    run = SimpleNamespace(run_id="manual__1", triggering_user_name=form.pop("user", "ana"))
    return {"dag_run": run, "params": {"decision": "none", "reason": "", "version": "", **form}}


@pytest.mark.req("K40", "J91")
def test_the_form_aborts_the_open_rollout_in_the_name_of_who_triggered_it(world: RolloutWorld) -> None:
    row = world.candidate("1.0.1")
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 0)
    with pytest.raises(AirflowSkipException, match="aborted by ana: complaints"):
        steps.decide_if_asked("scout", _context(decision="abort", reason="complaints", version="1.0.1"))
    assert world.state(row) is RolloutState.REVERTED
    assert world.audit.entries("scout")[0].actor == "ana"
    assert notes(world) == ["scout 1.0.1 aborted by ana: complaints"]


def test_a_run_without_a_decision_goes_on_and_one_without_a_user_decides_nothing(world: RolloutWorld) -> None:
    row = world.candidate("1.0.1")
    steps.decide_if_asked("scout", _context())
    with pytest.raises(RolloutError, match="needs the name"):
        steps.decide_if_asked("scout", _context(decision="abort", reason="r", version="1.0.1", user=None))
    assert world.state(row) is RolloutState.PENDING


@pytest.mark.parametrize("word", ["abort", "promote"])
def test_a_decision_names_its_version_so_that_a_repeat_means_no_other_candidate(world: RolloutWorld, word: str) -> None:
    row = world.candidate("1.0.1")
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 0)
    for version in ("", "  "):
        with pytest.raises(RolloutError, match=r"names no version; .* type 1\.0\.1 .*"):
            steps.decide_if_asked("scout", _context(decision=word, reason="r", version=version))
    assert world.state(row) is RolloutState.CANARY
    newer = world.candidate("1.0.2")
    with pytest.raises(RolloutError, match=r"by now that of 1\.0\.2"):
        steps.decide_if_asked("scout", _context(decision=word, reason="r", version="1.0.1"))
    assert world.state(newer) is RolloutState.PENDING


def test_a_decision_without_a_version_says_when_nothing_is_open(world: RolloutWorld) -> None:
    with pytest.raises(RolloutError, match="names no version, and no rollout of scout is open"):
        steps.decide_if_asked("scout", _context(decision="abort", reason="r"))


def test_the_form_offers_exactly_the_decisions_there_are() -> None:
    from airflow.sdk.exceptions import ParamValidationError

    from perennial.bridge.factory import rollout_dag
    from tests.dags.test_shapes import agent

    params = rollout_dag(agent()).params
    for word in RolloutDecision:
        assert params.get_param("decision").resolve(word.value) == word.value
    with pytest.raises(ParamValidationError):
        params.get_param("decision").resolve("pause")


def test_a_parked_rollout_needs_no_task_and_its_teardown_leaves_it_alone(
    world: RolloutWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.domain.words import Parked

    with pytest.raises(AirflowSkipException, match="parked: frozen until Monday"):
        operators.settle_verdict({"action": rollout.PARKED, "reason": "frozen until Monday"})
    assert operators.PARKED == rollout.PARKED
    row = world.candidate("1.0.1")
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 0)
    world.rollouts.park(row.id, Parked.ASK, "a person decides")
    context = {"ti": SimpleNamespace(xcom_pull=lambda **_: {"rollout_id": row.id})}
    monkeypatch.setattr(steps, "get_current_context", lambda: context)
    with pytest.raises(AirflowSkipException, match="a person decides"):
        steps.revert()
    assert world.state(row) is RolloutState.CANARY
    assert notes(world) == ["scout 1.0.1 stays at 5% of the keys: a person decides"]
