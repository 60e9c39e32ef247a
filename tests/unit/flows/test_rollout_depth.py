"""Rollouts that wait, are decided by people, freeze, bake badly, and survive a controller that dies anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from perennial.domain.job import JobRequest
from perennial.domain.words import Parked, Reason, ReportKind, RolloutDecision, RolloutState, TooLittleTraffic
from perennial.errors import PromotionRefused, RolloutError
from perennial.fleet.agent import Breaker, Rollout
from perennial.fleet.loader import Fleet
from perennial.flows import due, rollout, train, watch
from perennial.flows.decide import decide
from perennial.flows.pause import pause_of, reset_breaker
from perennial.flows.permission import require_served_permission
from perennial.flows.rollback import rollback_agent, settle_killed
from perennial.flows.rollout import is_settled
from perennial.flows.rollout_status import arms, rollout_status
from perennial.ingest.results import Due
from perennial.registry.folder_store import FolderStore
from perennial.registry.release import make_release
from perennial.rollout.rows import GatewayRow, Report, RolloutRow
from perennial.rollout.targets import FolderTarget
from perennial.rollout.verdict import ArmStats
from perennial.settings import Settings
from tests.rollout_world import Behaviour, Killed, RolloutWorld, make_rollout_world
from tests.unit.registry.samples import PASSWORD, REPORT, Keys, components, manifest

QUICK = Rollout(
    step_seconds=5.0, max_hold_seconds=60.0, bake_seconds=7200.0, targets=("gateway",), steps=(0.1, 0.5, 1.0)
)  # fmt: skip


@pytest.fixture
def genuine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles whose bytes are as signed; that verification has tests of its own. Permission is asked for real."""
    monkeypatch.setattr("perennial.flows.decide.bundle_folder", require_served_permission)


def _world(**changes: Any) -> RolloutWorld:
    freeze, breaker = changes.pop("freeze", ()), changes.pop("breaker", None)
    world = make_rollout_world(rollout=replace(QUICK, **changes), freeze=freeze, breaker=breaker)
    world.champion("1.0.0")
    for _ in range(20):
        world.clock.move(1.0)
        world.traffic(20)
    return world


def _begun(world: RolloutWorld, version: str = "1.0.1") -> RolloutRow:
    row = world.candidate(version)
    world.agreed(row, 0.95)
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 0)
    return world.rollouts.get(row.id)


def _look(world: RolloutWorld, row: RolloutRow, index: int = 0, *, seconds: float = 1.0, requests: int = 0) -> str:
    world.clock.move(seconds)
    world.traffic(requests)
    return str(rollout.look(world.ports, {"rollout_id": row.id}, index)["action"])


def _serve(world: RolloutWorld, version: str = "1.0.1") -> RolloutRow:
    row = _begun(world, version)
    for index in (0, 1):
        rollout.begin_step(world.ports, {"rollout_id": row.id}, index)
        assert [_look(world, row, index, seconds=6, requests=900) for _ in range(1)] == ["promote"]
    rollout.full(world.ports, {"rollout_id": row.id})
    return world.rollouts.get(row.id)


# too little traffic


@pytest.mark.req("K39", "K40")
def test_a_rollout_that_asks_keeps_its_share_without_a_run_and_a_person_promotes_it(genuine: None) -> None:
    world = _world(on_too_little_traffic=TooLittleTraffic.ASK)
    row = _begun(world)
    assert _look(world, row, seconds=59) == "hold"
    assert [_look(world, row) for _ in range(2)] == ["parked", "parked"]
    asked = world.rollouts.get(row.id)
    assert (asked.state, asked.parked, asked.weight) == (RolloutState.CANARY, Parked.ASK, 0.1)
    assert len([look for look in world.rollouts.looks(row.id) if look["action"] == "ask"]) == 1
    assert watch.something_bakes(world.ports)
    assert watch.look(world.ports)[0]["action"] == "parked"
    status = rollout_status(world.ports, "scout")["rollout"]
    assert (status["parked"], "a person decides" in status["next"], status["says"]) == ("ask", True, "ask")
    how: dict[str, Any] = {"actor": "ana", "reason": "read ten answers"}
    for _ in range(2):
        done = decide(world.ports, "scout", RolloutDecision.PROMOTE, **how)
    assert done["state"] == "baking"
    assert world.rollouts.serving("scout").champion == "1.0.1"
    assert world.rollouts.get(row.id).parked is None
    assert world.audited("1.0.1") == ["promoted"]
    assert world.audit.entries("scout")[0].actor == "ana"
    assert _look(world, row) == "promote"  # a run that still looked would end well
    assert rollout.begin_step(world.ports, {"rollout_id": row.id}, 1)["action"] == "promote"


def test_a_bad_rollout_is_reverted_while_it_waits_for_a_person() -> None:
    world = _world(on_too_little_traffic=TooLittleTraffic.ASK)
    row = _begun(world)
    assert _look(world, row, seconds=61) == "parked"
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    world.traffic(200)
    assert watch.look(world.ports)[0]["action"] == "rollback"
    assert world.state(row) is RolloutState.REVERTED
    assert world.audited("1.0.1") == ["reverted"]


def test_offline_evidence_decides_when_the_agent_says_so() -> None:
    world = _world(on_too_little_traffic=TooLittleTraffic.OFFLINE)
    row = _begun(world)
    assert _look(world, row, seconds=61) == "promote"
    (look,) = [
        look for look in world.rollouts.looks(row.id) if look["action"] == "promote" and look["state"] == "canary"
    ]
    assert "offline evidence" in look["reason"]
    assert look["evidence"]["decided_on"].startswith("offline evidence: gates passed")


# people


@pytest.mark.req("K40")
def test_a_person_aborts_and_the_same_word_again_changes_nothing() -> None:
    world = _world()
    row = _begun(world)
    for _ in range(2):
        decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="wrong slice", version="1.0.1")
    assert (world.state(row), world.rollouts.get(row.id).reason) == (
        RolloutState.REVERTED,
        "aborted by ana: wrong slice",
    )
    rollout.revert(world.ports, {"rollout_id": row.id}, "the run's own teardown")
    assert world.audited("1.0.1") == ["rollout_aborted"]
    assert world.rollouts.serving("scout").champion == "1.0.0"
    assert _look(world, row) == "rollback"  # its run ends


@pytest.mark.parametrize(
    ("decision", "changes", "says"),
    [
        (RolloutDecision.ABORT, {"actor": " "}, "needs the name"),
        (RolloutDecision.PROMOTE, {"reason": ""}, "a reason"),
        (RolloutDecision.PROMOTE, {"version": "1.0.9"}, "by now that of 1.0.1"),
        (RolloutDecision.NONE, {}, "nothing was decided"),
    ],
)
def test_a_decision_needs_a_name_a_reason_and_the_version_that_was_meant(
    decision: RolloutDecision, changes: dict[str, str], says: str, genuine: None
) -> None:
    world = _world()
    row = _begun(world)
    with pytest.raises(RolloutError, match=says):
        decide(world.ports, "scout", decision, **{"actor": "ana", "reason": "r", **changes})
    assert world.state(row) is RolloutState.CANARY


def test_nothing_that_is_over_can_be_decided(genuine: None) -> None:
    world = _world()
    with pytest.raises(RolloutError, match="is done and not open"):
        decide(world.ports, "scout", RolloutDecision.PROMOTE, actor="ana", reason="r")
    with pytest.raises(RolloutError, match="perennial rollback"):
        decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="r")


@pytest.mark.req("K36", "K40")
@pytest.mark.parametrize(
    ("release", "says"),
    [
        ({"action": "hold"}, "did not let scout 1.0.1 through"),
        ({"action": "approve"}, "no approval that was live"),
        ({"judged": "others"}, "no gate report covers the bytes"),
    ],
)
def test_nobody_promotes_what_the_gates_do_not_cover(release: dict[str, str], says: str, genuine: None) -> None:
    world = _world()
    row = world.candidate("1.0.1", **release)
    for promote in (
        lambda: decide(world.ports, "scout", RolloutDecision.PROMOTE, actor="ana", reason="r"),
        lambda: rollout.full(world.ports, {"rollout_id": row.id}),
    ):
        with pytest.raises(PromotionRefused, match=says):
            promote()
    assert world.rollouts.serving("scout").champion == "1.0.0"


def test_a_rollback_by_hand_is_written_down_once_for_each_rollout_that_it_ends() -> None:
    world = _world()
    served, canary = _serve(world), _begun(world, "1.0.2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perennial.flows.rollback.bundle_folder", lambda *_: Path())
        rollback_agent(world.ports, "scout", actor="ana", reason="complaints")
    assert {world.state(served), world.state(canary)} == {RolloutState.REVERTED}
    world.clock.move(60)
    watch.look(world.ports)
    assert [entry.actor for entry in world.audit.entries("scout") if entry.action == "reverted"] == ["ana", "ana"]


# freeze windows

NOON = ("Wed 09:00/Wed 09:10",)  # the world begins on a Wednesday at nine


@pytest.mark.req("K39")
def test_nothing_is_promoted_in_a_freeze_window_and_it_goes_on_by_itself_afterwards(genuine: None) -> None:
    world = _world(freeze=NOON)
    row = _begun(world)
    assert world.state(row) is RolloutState.SHADOW
    assert row.parked is Parked.FREEZE
    with pytest.raises(RolloutError, match="frozen until 2026-11-18 09:10 UTC"):
        decide(world.ports, "scout", RolloutDecision.PROMOTE, actor="ana", reason="r")
    assert rollout.full(world.ports, {"rollout_id": row.id})["action"] == "parked"
    assert "frozen until" in str(rollout_status(world.ports, "scout")["freeze"])
    assert watch.look(world.ports)[0]["action"] == "parked"
    world.clock.move(600)
    seen = []
    for _ in range(8):
        watch.look(world.ports)
        seen.append(world.rollouts.serving("scout").weight)
        world.clock.move(60)
        world.traffic(600)
    assert seen[:2] == [pytest.approx(0.1), pytest.approx(0.5)]
    assert world.state(row) is RolloutState.BAKING
    assert world.audited("1.0.1") == ["promoted"]


def _parked_by_a_freeze(until: str = "09:20", **changes: Any) -> tuple[RolloutWorld, RolloutRow]:
    world = _world(freeze=(f"Wed 09:02/Wed {until}",), **changes)
    row = _begun(world)
    world.clock.move(120)
    world.traffic(900)
    assert _look(world, row) == "parked"
    return world, row


def _one_error_in_44(world: RolloutWorld) -> None:
    """More failures than the plan allows, and far too few answers to be sure of it."""
    sure = world.rollouts.stats

    def stats(agent: str, version: str, **named: Any) -> ArmStats:
        found = sure(agent, version, **named)
        return replace(found, answers=44, errors=1, trailing_errors=0) if version == "1.0.1" else found

    world.rollouts.stats = stats  # type: ignore[method-assign, assignment]


@pytest.mark.req("K39", "K40")
def test_noise_reverts_no_candidate_that_waits_for_the_end_of_a_freeze(genuine: None) -> None:
    world, row = _parked_by_a_freeze()
    fair = world.rollouts.stats
    _one_error_in_44(world)
    world.clock.move(700)
    assert watch.look(world.ports)[0]["action"] == "parked"
    assert rollout_status(world.ports, "scout")["rollout"]["says"] == "hold"
    world.clock.now = world.clock.now.replace(minute=20, second=10)  # over: from here on its patience counts again
    assert watch.look(world.ports)[0]["action"] == "hold"
    assert world.state(row) is RolloutState.CANARY
    world.rollouts.stats = fair  # type: ignore[method-assign]
    assert watch.look(world.ports)[0]["action"] == "hold"  # the next step
    assert world.rollouts.get(row.id).step == 1


@pytest.mark.req("K40")
def test_patience_ends_some_time_after_a_freeze(genuine: None) -> None:
    world, row = _parked_by_a_freeze()
    _one_error_in_44(world)
    world.clock.now = world.clock.now.replace(minute=21, second=1)
    assert watch.look(world.ports)[0]["action"] == "rollback"
    assert world.state(row) is RolloutState.REVERTED


@pytest.mark.req("K40")
def test_patience_holds_after_a_freeze_that_was_shorter_than_it(genuine: None) -> None:
    world, row = _parked_by_a_freeze(until="09:04", max_hold_seconds=600.0)
    _one_error_in_44(world)
    world.clock.now = world.clock.now.replace(minute=11, second=0)
    assert watch.look(world.ports)[0]["action"] == "hold"
    assert world.state(row) is RolloutState.CANARY


@pytest.mark.req("K40")
def test_a_candidate_that_is_surely_bad_goes_back_late_in_a_freeze_too(genuine: None) -> None:
    world, _ = _parked_by_a_freeze()
    world.behaviours["1.0.1"] = Behaviour(right=0.4)
    world.clock.move(700)
    world.traffic(2000)
    assert watch.look(world.ports)[0]["action"] == "rollback"


@pytest.mark.req("K39", "K40")
def test_noise_reverts_no_candidate_that_waits_for_a_person() -> None:
    world = _world(on_too_little_traffic=TooLittleTraffic.ASK)
    row = _begun(world)
    assert _look(world, row, seconds=61) == "parked"
    _one_error_in_44(world)
    world.clock.move(700)
    assert watch.look(world.ports)[0]["action"] == "parked"
    assert world.state(row) is RolloutState.CANARY


@pytest.mark.req("K40")
def test_a_rollback_needs_no_window() -> None:
    world = _world(freeze=("Wed 09:02/Wed 23:00",))
    row = _begun(world)
    world.clock.move(120)
    assert _look(world, row, seconds=6, requests=900) == "parked"
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    world.traffic(100)
    assert watch.look(world.ports)[0]["action"] == "rollback"


def test_freeze_windows_that_cannot_be_read_promote_nothing_and_revert_nothing() -> None:
    world = _world()
    ports = replace(world.ports, settings=Settings(freeze="tomorrow"))
    row = world.candidate("1.0.1")
    for broken, says in (
        (ports, "PERENNIAL_FREEZE"),
        (replace(ports, fleet=lambda: Fleet(members=(), errors=())), "fleet"),
    ):
        said = rollout.begin_step(broken, {"rollout_id": row.id}, 0)
        assert (said["action"], says in said["reason"]) == ("parked", True)
    assert world.rollouts.serving("scout").weight == 0.0


# bake


@pytest.mark.req("J94", "J95", "K40")
@pytest.mark.parametrize("trouble", ["probe", "reports"])
def test_a_failed_probe_and_five_people_revert_a_champion_that_bakes(trouble: str) -> None:
    world = _world()
    row = _serve(world)
    if trouble == "probe":
        beat = GatewayRow(
            instance="g1", agent="scout", champion="1.0.0", previous=None, candidate=None, weight=0.0, epoch=1,
            error="1.0.1 refused: the model answers no probe",
        )  # fmt: skip
        world.rollouts.heartbeats["g1", "scout"] = (world.clock(), beat)
    else:
        clicks = [b"ana"] * 9 + [b"bo", b"cy", b"di"]
        for number, who in enumerate(clicks):
            world.rollouts.report(_report(number, who))
        assert watch.look(world.ports)[0]["action"] == "hold"  # twelve clicks of four people
        world.rollouts.report(_report(99, b"ed"))
    said = watch.look(world.ports)[0]
    assert (said["action"], world.state(row)) == ("rollback", RolloutState.REVERTED)
    assert ("refused" if trouble == "probe" else "5 people") in said["reason"]
    assert world.rollouts.serving("scout").champion == "1.0.0"
    assert world.audited("1.0.1") == ["promoted", "bake_reverted"]


def _report(number: int, who: bytes) -> Report:
    return Report(report_id=UUID(int=number), agent="scout", kind=ReportKind.WRONG, reporter=who, version="1.0.1")


@pytest.mark.req("K39", "J43")
def test_a_newer_candidate_supersedes_one_in_canary_while_a_bake_runs() -> None:
    world = _world()
    baking, older = _serve(world), _begun(world, "1.0.2")
    newer = _begun(world, "1.0.3")
    assert world.state(older) is RolloutState.SUPERSEDED
    assert _look(world, older) == "superseded"
    assert rollout.begin_step(world.ports, {"rollout_id": older.id}, 1)["action"] == "superseded"
    assert (world.state(baking), world.state(newer)) == (RolloutState.BAKING, RolloutState.CANARY)
    world.behaviours["1.0.1"] = Behaviour(right=0.3)
    world.clock.move(60)
    world.traffic(900)
    watch.look(world.ports)  # the bake goes badly under a canary of a newer one, which stays
    assert (world.state(baking), world.state(newer)) == (RolloutState.REVERTED, RolloutState.CANARY)
    serving = world.rollouts.serving("scout")
    assert (serving.champion, serving.candidate, serving.weight) == ("1.0.0", "1.0.3", pytest.approx(0.1))


def _baking_under_a_newer_canary(**changes: Any) -> tuple[RolloutWorld, RolloutRow, RolloutRow]:
    world = _world(**changes)
    return world, _serve(world), _begun(world, "1.0.2")


def _finish(world: RolloutWorld, row: RolloutRow) -> RolloutRow:
    for index in (0, 1):
        rollout.begin_step(world.ports, {"rollout_id": row.id}, index)
        assert _look(world, row, index, seconds=6, requests=900) == "promote"
    rollout.full(world.ports, {"rollout_id": row.id})
    return world.rollouts.get(row.id)


def _minute(world: RolloutWorld) -> str:
    world.clock.move(60)
    world.traffic(900)
    watch.look(world.ports)
    return str(world.rollouts.serving("scout").champion)


@pytest.mark.req("K39", "K40")
def test_a_candidate_whose_champion_went_back_is_judged_beside_the_one_that_answers_now() -> None:
    world, baking, newer = _baking_under_a_newer_canary(max_hold_seconds=30.0)
    world.clock.move(29)
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    world.traffic(200)
    watch.look(world.ports)
    assert (world.state(baking), world.state(newer)) == (RolloutState.REVERTED, RolloutState.CANARY)
    assert _look(world, newer, seconds=2) == "hold"  # its patience begins anew: 1.0.0 has not answered beside it yet
    world.behaviours["1.0.2"] = Behaviour(right=0.3)
    assert _look(world, newer, seconds=4, requests=2000) == "rollback"
    assert "the champion on 8" in world.rollouts.get(newer.id).reason  # not that of 1.0.1, which answered nothing


@pytest.mark.req("K40", "J91")
def test_what_served_after_a_bad_bake_goes_back_to_the_champion_that_it_replaced() -> None:
    world, baking, newer = _baking_under_a_newer_canary()
    world.behaviours["1.0.1"] = Behaviour(right=0.3)
    assert _minute(world) == "1.0.0"
    newer = _finish(world, newer)
    assert (newer.previous, world.rollouts.serving("scout").previous) == ("1.0.0", "1.0.0")
    world.behaviours["1.0.2"] = Behaviour(right=0.3)
    assert _minute(world) == "1.0.0"  # and not the version that production had taken back
    assert (world.state(baking), world.state(newer)) == (RolloutState.REVERTED, RolloutState.REVERTED)
    assert world.aliases["champion"] == "1.0.0"


@pytest.mark.req("K40", "J91")
def test_a_bake_that_was_cut_short_goes_on_when_the_newer_version_goes_back() -> None:
    world, baking, newer = _baking_under_a_newer_canary()
    newer = _finish(world, newer)
    cut = world.rollouts.get(baking.id)
    assert (cut.state, newer.previous) == (RolloutState.SUPERSEDED, "1.0.1")
    world.behaviours["1.0.2"] = Behaviour(errors=1.0)
    assert _minute(world) == "1.0.1"
    again = world.rollouts.get(baking.id)
    assert (again.state, again.full_at, again.ended_at, again.weight) == (RolloutState.BAKING, cut.full_at, None, 1.0)
    assert world.rollouts.seconds_since_full(again.id) == 0.0  # a whole bake lies before it
    assert world.rollouts.serving("scout").previous == "1.0.0"
    world.behaviours["1.0.1"] = Behaviour(right=0.3)
    assert _minute(world) == "1.0.0"
    assert world.audited("1.0.1") == ["promoted", "bake_reverted"]


@pytest.mark.req("K40", "J91")
def test_a_fault_that_two_versions_share_is_found_by_the_last_one_that_baked_to_its_end() -> None:
    world = _world()
    baking = _serve(world)
    world.behaviours["1.0.1"] = world.behaviours["1.0.2"] = Behaviour(right=0.3)
    world.traffic(9000)
    newer = _finish(world, _begun(world, "1.0.2"))  # as good as the one before, so its canary says nothing
    assert _minute(world) == "1.0.1"
    assert world.rollouts.get(newer.id).reason.startswith("beside 1.0.0, the last that baked to its end: right on")
    assert _minute(world) == "1.0.0"
    assert {world.state(baking), world.state(newer)} == {RolloutState.REVERTED}


@pytest.mark.req("K40")
def test_a_rollback_by_hand_lets_a_bake_that_was_cut_short_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.flows.rollback.bundle_folder", lambda *_: Path())
    world, baking, newer = _baking_under_a_newer_canary()
    _finish(world, newer)
    rollback_agent(world.ports, "scout", actor="ana", reason="complaints")
    assert (world.state(baking), world.state(newer)) == (RolloutState.BAKING, RolloutState.REVERTED)
    rollback_agent(world.ports, "scout", actor="ana", reason="more complaints")
    assert (world.state(baking), world.rollouts.serving("scout").champion) == (RolloutState.REVERTED, "1.0.0")


@pytest.fixture
def signed(tmp_path: Path) -> RolloutWorld:
    """A world whose versions are real signed bundles, served from a folder."""
    keys, target = Keys.make(tmp_path), FolderTarget(tmp_path / "serving", environment={})
    settings = Settings(home=tmp_path, verify_key_file=keys.public)
    store = FolderStore(tmp_path / "models")
    world = make_rollout_world(
        rollout=replace(QUICK, bake_seconds=4 * 3600.0, targets=("gateway", "folder")), settings=settings,
        targets={"folder": target}, models=store,
    )  # fmt: skip

    def release(version: str, *_: Any, **__: Any) -> None:
        job, candidate = uuid4(), components(tmp_path / f"candidate-{version}")
        base = world.ledger.champion("scout")
        made = make_release(
            ledger=world.ledger, store=store, agent="scout", job_id=job, part="patch", tasks=candidate / "tasks",
            describe=lambda name, order: manifest(candidate, version=name, order=order, job_id=str(job), base_version=base),
            gate_report=REPORT, out=tmp_path / f"release-{version}", key_file=keys.private, password=PASSWORD, tags={},
        )  # fmt: skip
        assert made.version == version
        world.ledger.add_gate_report(
            agent="scout",
            job_id=job,
            attempt=1,
            content_digest=made.manifest["content_digest"],
            action="pass",
            report={},
        )

    world.release = release  # type: ignore[attr-defined]
    return world


@pytest.mark.req("J91", "J93", "K40", "K69")
def test_a_champion_that_degrades_two_hours_after_everything_goes_back_to_the_same_bytes(signed: Any) -> None:
    target = signed.ports.targets["folder"]
    for version in ("1.0.0", "1.0.1"):
        signed.release(version)
        ref = rollout.verify(signed.ports, "scout", f"run-{version}")
        rollout.full(signed.ports, ref)
        if version == "1.0.0":
            before = target.digest("scout")
            signed.traffic(600)
            signed.clock.move(3600 * 4 + 1)
            watch.look(signed.ports)
    assert target.digest("scout") != before
    for minute in range(120):
        signed.clock.move(60)
        signed.traffic(30)
        if minute % 10 == 0:
            assert watch.look(signed.ports)[0]["action"] == "hold"
    signed.behaviours["1.0.1"] = Behaviour(right=0.4)
    looks = []
    for _ in range(2):
        signed.clock.move(60)
        signed.traffic(120)
        looks += [look["action"] for look in watch.look(signed.ports)]
    assert "rollback" in looks
    assert signed.rollouts.serving("scout").champion == "1.0.0"
    assert target.digest("scout") == before == target.digest_of("scout", "1.0.0")
    assert signed.ports.models.aliases("scout")["champion"] == "1.0.0"
    flagged = [one.version for one in signed.buffer.performance("scout", 10) if one.rollback_triggered]
    assert flagged == ["1.0.1"]
    signed.release("1.0.2")
    ref = rollout.verify(signed.ports, "scout", "run-1.0.2")  # the next candidate is not blocked
    assert rollout.begin_step(signed.ports, ref, 0)["action"] == "hold"
    assert signed.rollouts.serving("scout").candidate == "1.0.2"
    decide(signed.ports, "scout", RolloutDecision.PROMOTE, actor="ana", reason="a person may, with real bytes")
    assert target.current("scout") == "1.0.2"


# a controller that dies


@pytest.mark.req("D10", "K40")
@pytest.mark.parametrize("where", ["canary", "bake", "abort", "full"])
def test_a_kill_at_any_call_before_or_after_it_leaves_nothing_half_done(where: str) -> None:
    calls = _run_killed(where, None, after=False)
    assert calls > 5
    for at in range(calls):
        for after in (False, True):
            _run_killed(where, at, after=after)


def _run_killed(where: str, at: int | None, *, after: bool) -> int:
    world = make_rollout_world(rollout=QUICK)
    world.champion("1.0.0")
    world.clock.move(1)
    world.traffic(30)
    row = _begun(world)
    if where == "bake":
        world.rollouts.promote_full(row.id, actor="t", reason="t")
        world.audit.append(actor="t", action="promoted", agent="scout", subject="1.0.1", detail={"rollout": row.id})
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    world.clock.move(1)
    world.traffic(0 if where == "full" else 60)
    ref = {"rollout_id": row.id}
    act = {
        "canary": lambda: rollout.look(world.ports, ref, 0), "bake": lambda: watch.look(world.ports),
        "abort": lambda: decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="r"),
        "full": lambda: rollout.full(world.ports, ref),
    }[where]  # fmt: skip
    world.fuse.calls, world.fuse.at, world.fuse.after = 0, at, after
    try:
        act()
    except Killed:
        world.fuse.at = None
        world.clock.move(20)
        act()  # Airflow tries the task again
    calls = world.fuse.calls
    world.fuse.at = None
    if where == "canary":
        rollout.revert(world.ports, ref, "teardown")
    good, bad = ("1.0.1", 0) if where == "full" else ("1.0.0", 1)
    assert world.rollouts.serving("scout").champion == good
    assert world.aliases["champion"] == good
    said = [word for word in world.audited("1.0.1") if word != "promoted"]
    assert said == {"canary": ["reverted"], "bake": ["bake_reverted"], "abort": ["rollout_aborted"], "full": []}[where]
    assert world.audited("1.0.1").count("promoted") == (where in {"full", "bake"})
    assert len([one for one in world.buffer.performance("scout", 50) if one.version == "1.0.1"]) == bad
    return calls


@pytest.mark.req("D10", "K40")
@pytest.mark.parametrize("again", [False, True])
def test_a_rollback_by_hand_that_is_killed_anywhere_ends_under_the_name_of_who_ordered_it(again: bool) -> None:
    calls = _rollback_killed(None, after=False, again=again)
    assert calls > 5
    for at in range(calls):
        for after in (False, True):
            _rollback_killed(at, after=after, again=again)


def _rollback_killed(at: int | None, *, after: bool, again: bool) -> int:
    """``again``: the person gives the same order again; otherwise the watch comes by."""
    world = make_rollout_world(rollout=QUICK)
    for number in range(3):
        world.champion(f"1.0.{number}")
    _begun(world, "1.0.3")
    world.clock.move(1)

    def order() -> None:
        rollback_agent(world.ports, "scout", actor="ana", reason="complaints")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perennial.flows.rollback.bundle_folder", lambda *_: Path())
        world.fuse.calls, world.fuse.at, world.fuse.after = 0, at, after
        try:
            order()
        except Killed:
            world.fuse.at = None
            begun = world.rollouts.serving("scout").champion == "1.0.1"
            settled = all(is_settled(world.ports, row) for row in world.rollouts.reverted_lately(60.0))
            if not begun or (again and not settled):
                order()
        calls = world.fuse.calls
    world.clock.move(20)
    watch.look(world.ports)
    assert world.rollouts.serving("scout").champion == "1.0.1"
    assert world.aliases["champion"] == "1.0.1"
    said = [(entry.action, entry.actor, entry.subject) for entry in world.audit.entries("scout")]
    assert sorted(said) == [("reverted", "ana", "1.0.2"), ("reverted", "ana", "1.0.3"), ("rollback", "ana", "1.0.1")]
    flagged = [one.version for one in world.buffer.performance("scout", 50) if one.rollback_triggered]
    assert sorted(map(str, flagged)) == ["1.0.2", "1.0.3"]
    return calls


# circuit breaker


def test_an_agent_whose_candidates_are_refused_again_and_again_trains_by_wish_alone() -> None:
    world = _world(breaker=Breaker(refused=3, window_seconds=3600.0))
    for number, refused in enumerate(("held", "reverted", "held"), 1):
        world.clock.move(60)
        if refused == "held":
            world.ledger.release("scout", f"1.0.{number}", action="hold")
        else:
            row = _begun(world, f"1.0.{number}")
            decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="r")
            assert world.state(row) is RolloutState.REVERTED
    paused = pause_of(world.ports, "scout")
    assert paused is not None
    assert paused.refused == 3

    notes: list[str] = []

    def ports(reason: Reason) -> Any:
        buffer = SimpleNamespace(
            due_agents=lambda: [("scout", reason)], job_of_run=lambda *_: None,
            due=lambda agent: Due(due=True, reason=reason, waiting=50, corrections=0, threshold=50),
            open_job=lambda request: uuid4(), cancel_waiting=lambda job_id, note: notes.append(note),
        )  # fmt: skip
        return replace(world.ports, buffer=buffer)  # type: ignore[arg-type]

    assert due.due_agents(ports(Reason.THRESHOLD)) == []
    assert due.due_agents(ports(Reason.CORRECTION)) == [("scout", Reason.CORRECTION)]
    assert train.claim(ports(Reason.THRESHOLD), JobRequest(agent="scout", run_id="r", reason=Reason.THRESHOLD)) is None
    assert len(notes) == 1  # the run's note says why
    assert "circuit breaker is open" in notes[0]
    assert "circuit breaker is open" in str(rollout_status(world.ports, "scout")["breaker"])
    with pytest.raises(RolloutError, match="a reason"):
        reset_breaker(world.ports, "scout", actor="ana", reason="")
    reset_breaker(world.ports, "scout", actor="ana", reason="found the broken source")
    assert due.due_agents(ports(Reason.THRESHOLD)) == [("scout", Reason.THRESHOLD)]
    assert world.audit.entries("scout")[0].action == "breaker_reset"


def test_the_breaker_closes_by_itself_after_its_window() -> None:
    world = _world(breaker=Breaker(refused=2, window_seconds=3600.0))
    for number in (1, 2):
        world.ledger.release("scout", f"1.0.{number}", action="hold")
    assert pause_of(world.ports, "scout") is not None
    world.clock.move(3601)
    assert pause_of(world.ports, "scout") is None


def test_a_status_shows_both_arms_with_an_interval_that_may_be_read_at_any_look() -> None:
    world = _world()
    row = _begun(world)
    world.clock.move(2)
    world.traffic(600)
    status = rollout_status(world.ports, "scout")
    assert [one["arm"] for one in arms(status)] == ["champion", "candidate"]
    shown = status["rollout"]
    low, high = shown["evidence"]["quality_drop_95_always"]
    narrow = shown["evidence"]["quality_drop_95"]
    assert low < narrow[0] < narrow[1] < high
    assert (shown["says"], shown["version"], shown["share"]) == ("hold", row.version, pytest.approx(0.1))
    assert "5 s at least" in shown["because"]
    assert shown["plan"]["step_seconds"] == 5.0


def _later(world: RolloutWorld, entries: int = 300) -> None:
    """What a busy agent writes within the hour: entries of all kinds, some of them much like those that are looked for."""
    for number in range(entries):
        version = f"2.0.{number}"
        detail = {"rollout": 1000 + number, "rollouts": [1000 + number]}
        for action in ("reverted", "rollback", "promoted"):
            world.audit.append(actor="perennial", action=action, agent="scout", subject=version, detail=detail)
    for number in range(60):
        row = world.candidate(f"3.0.{number}")
        world.rollouts.revert(row.id, reason=f"reason {number}", actor="perennial")


@pytest.mark.req("K40", "J110")
def test_an_abort_stays_written_however_much_is_written_after_it() -> None:
    world = _world()
    row = _begun(world)
    decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="r")
    _later(world)
    world.clock.move(1800)
    assert is_settled(world.ports, world.rollouts.get(row.id))
    settle_killed(world.ports, world.rollouts.get(row.id))
    watch.look(world.ports)
    mine = [one for one in world.audit.entries("scout", 10_000) if one.detail.get("rollout") == row.id]
    assert [(one.action, one.actor) for one in mine] == [("rollout_aborted", "ana")]


@pytest.mark.req("K40", "J110")
def test_an_order_that_was_killed_is_found_after_sixty_newer_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.flows.rollback.bundle_folder", lambda *_: Path())
    world = make_rollout_world(rollout=QUICK)
    for number in range(3):
        world.champion(f"1.0.{number}")
        world.clock.move(1)
    with monkeypatch.context() as patch:
        patch.setattr("perennial.flows.rollback._audit", _dies)
        with pytest.raises(Killed):
            rollback_agent(world.ports, "scout", actor="ana", reason="complaints")
    world.clock.move(1)
    _later(world)
    world.clock.move(120)
    # somebody else gives the same reason for an order of their own
    rollback_agent(world.ports, "scout", actor="bo", reason="complaints", version="1.0.0")
    world.clock.move(1800)
    for _ in range(2):
        watch.look(world.ports)
    said = [
        (one.action, one.actor, one.subject, one.detail.get("from")) for one in world.audit.entries("scout", 10_000)
    ]
    assert said.count(("rollback", "ana", "1.0.1", "1.0.2")) == 1
    assert [one[:3] for one in said if one[2] == "1.0.2"] == [("reverted", "ana", "1.0.2")]
    assert [one for one in said if one[0] == "rollback" and one[1] == "bo"] == [("rollback", "bo", "1.0.0", "1.0.1")]


@pytest.mark.req("K40")
def test_another_order_after_a_killed_one_is_not_taken_for_its_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.flows.rollback.bundle_folder", lambda *_: Path())
    world = make_rollout_world(rollout=QUICK)
    for number in range(3):
        world.champion(f"1.0.{number}")
    monkeypatch.setattr("perennial.flows.rollback._audit", _dies)
    with pytest.raises(Killed):
        rollback_agent(world.ports, "scout", actor="ana", reason="complaints")
    monkeypatch.undo()
    monkeypatch.setattr("perennial.flows.rollback.bundle_folder", lambda *_: Path())
    assert world.rollouts.serving("scout").champion == "1.0.1"
    done = rollback_agent(world.ports, "scout", actor="ana", reason="complaints", version="1.0.0")
    assert done == {"agent": "scout", "from": "1.0.1", "to": "1.0.0"}
    assert world.rollouts.serving("scout").champion == "1.0.0"


def _dies(*_: Any) -> None:
    raise Killed


@pytest.mark.req("J110")
def test_a_persons_promotion_that_was_killed_before_its_entry_is_audited_under_their_name(genuine: None) -> None:
    world = _world()
    row = _begun(world)
    # what `decide` has done when it is killed: the move, with name and reason
    world.rollouts.promote_full(row.id, actor="ana", reason="promoted by ana: the desk waits")
    world.ledger.move_alias("scout", "champion", row.version, actor="ana", reason="promoted by ana: the desk waits")
    for _ in range(2):
        rollout.full(world.ports, {"rollout_id": row.id})
    entries = [
        one for one in world.ports.audit.entries("scout") if one.action == "promoted" and one.subject == row.version
    ]
    assert [(one.actor, dict(one.detail)) for one in entries] == [
        ("ana", {"why": "the desk waits", "by_hand": True, "rollout": row.id})
    ]
