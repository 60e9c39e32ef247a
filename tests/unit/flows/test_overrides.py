"""Settings for a while: who may set what, what they change, and that a running job keeps what it was claimed with."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner

from perennial.cli import build
from perennial.domain.job import BatchRef
from perennial.domain.words import Mode, Reason
from perennial.errors import FleetError, NotConfigured, TrainingError
from perennial.fleet import loader
from perennial.fleet.memory_overrides import MemoryOverrides
from perennial.flows import fleet_sync, overrides, train
from perennial.flows.explain import explain
from perennial.flows.rollout import plan_of
from perennial.flows.train.evaluate import gate_settings
from perennial.flows.train.fit import trainer_of
from perennial.registry.bundle import check_bundle
from perennial.registry.manifest import Manifest
from tests.unit.flows.desk import Desk
from tests.unit.registry.samples import Keys

WHO: dict[str, Any] = {"actor": "ana", "reason": "a new topic comes in"}


@pytest.fixture
def open_desk(desk: Desk) -> Desk:
    """A deployment with a store of overrides on the same clock."""
    store = MemoryOverrides(lambda: desk.now)
    desk.ports = replace(
        desk.ports,
        overrides=store,
        fleet=partial(overrides.overridden, partial(loader.load, desk.room / "fleet"), store),
    )
    return desk


def put(desk: Desk, key: str, text: str, *, seconds: float = 3600.0) -> None:
    overrides.set_override(desk.ports, "scout", key, text, seconds=seconds, **WHO)


def test_it_holds_everywhere_until_its_time_is_over(open_desk: Desk) -> None:
    put(open_desk, "update_threshold", "20")
    put(open_desk, "gates.min_holdout", "250")
    put(open_desk, "rollout.bake_seconds", "7200")
    member = open_desk.ports.fleet().member("scout")
    assert (member.agent.update_threshold, member.as_declared.update_threshold) == (20, None)
    assert fleet_sync.record_of(member, open_desk.ports.settings)["update_threshold"] == 20
    shown = fleet_sync.record_of(member, open_desk.ports.settings)["record"]["overrides"]
    assert [(one["key"], one["value"], one["declared"]) for one in shown] == [
        ("gates.min_holdout", 250, 100), ("rollout.bake_seconds", 7200.0, 3600.0), ("update_threshold", 20, None),
    ]  # fmt: skip
    assert plan_of(member.agent).bake_seconds == 7200.0
    assert gate_settings(open_desk.ports, member.agent).min_holdout == 250
    open_desk.later(2)
    assert open_desk.ports.fleet().member("scout").agent.update_threshold is None
    assert (
        "overrides"
        not in fleet_sync.record_of(open_desk.ports.fleet().member("scout"), open_desk.ports.settings)["record"]
    )


def test_setting_and_unsetting_are_in_the_audit_with_actor_and_reason(open_desk: Desk) -> None:
    put(open_desk, "update_threshold", "20")
    assert overrides.unset_override(open_desk.ports, "scout", "update_threshold", actor="bo", reason="enough") is True
    assert overrides.unset_override(open_desk.ports, "scout", "update_threshold", actor="bo", reason="enough") is False
    entries = open_desk.ports.audit.entries("scout")
    assert [(one.action, one.actor, one.subject) for one in entries] == [
        ("override_unset", "bo", "update_threshold"), ("override_set", "ana", "update_threshold"),
    ]  # fmt: skip
    assert entries[1].detail["reason"] == WHO["reason"]
    assert (entries[1].detail["value"], entries[1].detail["declared"]) == (20, 50)


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("update_threshold", "many", "takes a whole number"),
        ("update_threshold", "2.5", "takes a whole number"),
        ("update_threshold", "0", "must be 1 or more"),
        ("selection.batch", "0", "a training without rows"),
        ("gates.max_slice_drop", "nan", "cannot be"),
        ("gates.max_slice_drop", "-1", "between 0 and 1"),
        ("gates.max_slice_drop", "0.2", "may only be lowered"),
        ("gates.rollback_threshold", "0.2", "may only be lowered for a while (the file says 0.05)"),
        ("gates.min_holdout", "10", "may only be raised"),
        ("gates.min_holdout", "5000", "never measured"),
        ("gates.k_folds_always", "perhaps", "takes true or false"),
        ("gates.two_person", "false", "cannot be set for a while"),
        ("gates.approvers", "eve", "cannot be set for a while"),
        ("redact_names", "false", "cannot be set for a while"),
        ("trainer.script", "evil.py", "cannot be set for a while"),
        ("rollout.step_seconds", "inf", "finite"),
    ],
)  # fmt: skip
def test_what_may_not_be_set_is_refused_and_leaves_nothing(open_desk: Desk, key: str, text: str, words: str) -> None:
    with pytest.raises(FleetError) as caught:
        put(open_desk, key, text)
    assert words in str(caught.value)
    assert open_desk.ports.overrides.history("scout") == ()
    assert open_desk.ports.audit.entries() == ()


def test_what_the_deployment_demands_may_not_be_loosened_either(open_desk: Desk) -> None:
    open_desk.ports.buffer.set_override("rollback_threshold", 0.02, by="constructor in a test")
    with pytest.raises(FleetError, match="may only be lowered"):
        put(open_desk, "gates.rollback_threshold", "0.045")
    put(open_desk, "gates.rollback_threshold", "0.01")
    agent = open_desk.ports.fleet().member("scout").agent
    assert gate_settings(open_desk.ports, agent).rollback_threshold == 0.01


def test_an_unknown_agent_and_a_deployment_without_a_store(open_desk: Desk) -> None:
    with pytest.raises(NotConfigured, match="nobody"):
        overrides.set_override(open_desk.ports, "nobody", "update_threshold", "5", seconds=60, **WHO)
    with pytest.raises(NotConfigured, match="overrides"):
        overrides.set_override(
            replace(open_desk.ports, overrides=None), "scout", "update_threshold", "5", seconds=60, **WHO
        )


def test_one_that_does_not_fit_a_new_file_is_an_error_of_the_file_and_not_of_the_fleet(open_desk: Desk) -> None:
    store = open_desk.ports.overrides
    store.set("scout", "gates.max_slice_drop", 7, seconds=60, **WHO)
    store.set("scout", "trainer.script", "evil.py", seconds=60, **WHO)
    store.set("scout", "update_threshold", 20, seconds=60, **WHO)
    fleet = open_desk.ports.fleet()
    assert (fleet.agent("scout").gates.max_slice_drop, fleet.agent("scout").update_threshold) == (0.03, 20)
    assert [one.key for one in fleet.member("scout").overrides] == ["update_threshold"]
    assert len(fleet.errors) == 2
    assert "perennial agent unset scout gates.max_slice_drop" in fleet.errors[0].message


def frozen(desk: Desk, run_id: str = "run-1") -> BatchRef:
    """A claimed attempt whose settings were frozen as `claim` does it."""
    ref = desk.claim(run_id)
    overrides.freeze(desk.ports, desk.ports.fleet().member("scout"), ref.job_id, ref.attempt)
    return ref


def test_a_running_job_keeps_the_settings_that_it_was_claimed_with(open_desk: Desk) -> None:
    put(open_desk, "gates.min_holdout", "250")
    ref = frozen(open_desk)
    put(open_desk, "gates.min_holdout", "300")
    assert overrides.agent_of(open_desk.ports, ref).gates.min_holdout == 250
    open_desk.later(2)
    assert open_desk.ports.fleet().agent("scout").gates.min_holdout == 100
    assert overrides.agent_of(open_desk.ports, ref).gates.min_holdout == 250
    again = open_desk.claim("run-1")  # killed and run again: the same job, a new attempt
    assert again.attempt == ref.attempt + 1
    assert (
        overrides.freeze(
            open_desk.ports, open_desk.ports.fleet().member("scout"), again.job_id, again.attempt
        ).gates.min_holdout
        == 250
    )


def test_a_job_that_was_claimed_without_any_takes_none_that_comes_later(open_desk: Desk) -> None:
    ref = frozen(open_desk)
    put(open_desk, "gates.min_holdout", "250")
    assert overrides.agent_of(open_desk.ports, ref).gates.min_holdout == 100
    before = open_desk.claim("run-2") if open_desk.ports.buffer.job(ref.job_id).completed_at else None
    assert before is None  # one training of an agent at a time


def test_the_manifest_and_the_explanation_say_what_was_set(open_desk: Desk) -> None:
    put(open_desk, "gates.min_holdout", "250")
    ref = frozen(open_desk)
    open_desk.judge(ref)
    open_desk.answer(ref, "ana")
    open_desk.later(2)  # over by now, and still what the release was made under
    open_desk.answer(ref, "ana")
    done = train.register(open_desk.ports, ref)
    folder, _ = open_desk.ports.models.fetch("scout", done["version"], open_desk.room / "fetched")
    manifest = check_bundle(folder)
    (one,) = manifest.overrides
    assert (one["key"], one["value"], one["declared"], one["actor"], one["reason"]) == (
        "gates.min_holdout", 250, 100, "ana", WHO["reason"],
    )  # fmt: skip
    assert Manifest.from_dict(json.loads(json.dumps(manifest.as_dict()))).overrides == manifest.overrides
    assert explain(open_desk.ports, "scout", done["version"]).overrides == manifest.overrides


def test_a_manifest_from_before_can_still_be_read(open_desk: Desk) -> None:
    ref = frozen(open_desk)
    open_desk.judge(ref, action="pass")
    done = train.register(open_desk.ports, ref)
    folder, _ = open_desk.ports.models.fetch("scout", done["version"], open_desk.room / "fetched")
    record = check_bundle(folder).as_dict()
    assert record.pop("overrides") == []
    assert Manifest.from_dict(record).overrides == ()


def test_a_runs_own_parameters_cannot_name_another_program(open_desk: Desk) -> None:
    path = open_desk.room / "fleet" / "scout.py"
    path.write_text(
        path.read_text().replace("ewc_text import EwcText", "command import Command").replace("EwcText()", "Command()")
    )
    for setting in ("script", "interpreter", "environment", "pinned"):
        ref = open_desk.claim(f"run-{setting}", overrides={setting: "/tmp/evil"})
        with pytest.raises(TrainingError, match=f"cannot change {setting}"):
            trainer_of(open_desk.ports, ref, open_desk.ports.fleet().agent("scout"))
        open_desk.ports.buffer.state.change_job(ref.job_id, lease_until=open_desk.now - timedelta(days=1))


def test_the_commands(open_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.cli.agent._ports", lambda: open_desk.ports)
    run = CliRunner()
    done = run.invoke(
        build(),
        ["agent", "set", "scout", "update_threshold=20", "--until", "24h", "--reason", "rush", "--actor", "ana"],
    )
    assert done.exit_code == 0, done.output
    assert "scout: update_threshold=20 until" in done.output
    shown = run.invoke(build(), ["agent", "show", "scout"]).output
    assert "update_threshold: 20   OVERRIDE of the deployment's, update_threshold=20 until" in shown
    record = json.loads(run.invoke(build(), ["agent", "show", "scout", "--json"]).output)
    assert (record["settings"]["update_threshold"], record["overrides"][0]["actor"]) == (20, "ana")
    for wrong in (["update_threshold", "--until", "24h", "--reason", "x"], ["update_threshold=3", "--until", "soon", "--reason", "x"],
                  ["update_threshold=3", "--until", "24h"]):  # fmt: skip
        assert run.invoke(build(), ["agent", "set", "scout", *wrong]).exit_code == 2
    assert (
        "as its file says"
        in run.invoke(build(), ["agent", "unset", "scout", "update_threshold", "--reason", "done"]).output
    )
    assert (
        "no override" in run.invoke(build(), ["agent", "unset", "scout", "update_threshold", "--reason", "done"]).output
    )


def test_claim_freezes_them(keys: Keys, open_desk: Desk) -> None:
    put(open_desk, "gates.min_holdout", "250")
    fleet_sync.sync(open_desk.ports)
    from perennial.domain.example import Example
    from perennial.domain.job import JobRequest
    from perennial.ingest.admit import Admitted
    from perennial.ingest.memory import MemoryAdmission

    rows = [
        Example(agent="scout", task="news", input_text=f"t {n}", expected_output="a", uncertainty=0.5) for n in range(9)
    ]
    open_desk.ports.buffer.add_many(rows)
    MemoryAdmission(open_desk.ports.buffer).run(
        "scout",
        lambda task, text, expected, feedback: Admitted(
            text=text, expected_output=expected, feedback=None, version="t"
        ),
    )
    ref = train.claim(open_desk.ports, JobRequest(agent="scout", run_id="r", reason=Reason.REQUEST, mode=Mode.ONLINE))
    assert ref is not None
    (one,) = overrides.frozen_overrides(open_desk.ports, ref.job_id)
    assert (one["key"], one["value"]) == ("gates.min_holdout", 250)
