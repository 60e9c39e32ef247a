"""The watch over champions and open rollouts: the present counts, one agent's trouble stops no other, and half-done things end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perennial.domain.words import Parked, RolloutState, TooLittleTraffic
from perennial.errors import NotConfigured, RolloutError, StoreUnavailable, WatchIncomplete
from perennial.fleet.agent import Breaker, Rollout
from perennial.fleet.loader import Fleet
from perennial.flows import rollout, watch
from perennial.flows.pause import pause_of
from perennial.retention.memory_runs import MemoryRuns
from perennial.rollout.rows import JudgedInput, RolloutRow
from tests import rollout_world
from tests.rollout_world import LABELS, Behaviour, Folder, Fused, Killed, RolloutWorld, make_rollout_world

PLAN = Rollout(
    step_seconds=5.0, max_hold_seconds=60.0, bake_seconds=7200.0, targets=("gateway",), steps=(0.1, 0.5, 1.0)
)


def _world(**changes: Any) -> RolloutWorld:
    breaker = changes.pop("breaker", None)
    world = make_rollout_world(rollout=replace(PLAN, **changes), breaker=breaker)
    world.champion("1.0.0")
    _minutes(world, 10)
    return world


def _minutes(world: RolloutWorld, count: int, requests: int = 60) -> None:
    for _ in range(count):
        world.clock.move(60.0)
        world.traffic(requests)


def _serve(world: RolloutWorld, version: str = "1.0.1") -> RolloutRow:
    row = world.candidate(version)
    world.agreed(row, 0.95)
    rollout.full(world.ports, {"rollout_id": row.id})
    return world.rollouts.get(row.id)


def _asked(world: RolloutWorld, version: str = "1.0.1", *, right: float = 1.0, labels: Sequence[str] = LABELS) -> None:
    """Recorded requests of a version whose truth came in."""
    for number in range(100):
        one = JudgedInput(task="topic", text=f"text {number}", actual=labels[number % 4], correct=right)
        world.rollouts.judged.append((world.clock(), "scout", version, one))


class Oracle:
    """A predecessor that answers everything as the truth is."""

    def predict(self, texts: Sequence[str]) -> list[Any]:
        return [SimpleNamespace(output=LABELS[int(text.split()[1]) % 4]) for text in texts]


# the present counts


@pytest.mark.req("K40", "J91")
def test_failures_after_a_good_hour_revert_also_when_the_predecessor_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "predictors", lambda *_: {"topic": Oracle()})
    world = _world()
    row = _serve(world)
    _minutes(world, 59, requests=400)
    _asked(world)
    assert watch.look(world.ports)[0]["action"] == "hold"
    world.behaviours["1.0.1"] = Behaviour(errors=0.12)
    _minutes(world, 1, requests=400)
    assert watch.look(world.ports)[0]["action"] == "rollback"
    assert world.state(row) is RolloutState.REVERTED


@pytest.mark.req("K40")
def test_traffic_that_turned_harder_for_both_reverts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = SimpleNamespace(predict=lambda texts: [SimpleNamespace(output="nothing") for _ in texts])
    monkeypatch.setattr(watch, "predictors", lambda *_: {"topic": wrong})
    world = _world()
    row = _serve(world)
    _minutes(world, 30, requests=200)
    world.behaviours["1.0.1"] = Behaviour(right=0.0)
    _minutes(world, 10, requests=200)
    _asked(world, right=0.0)
    assert watch.look(world.ports)[0]["action"] == "hold"
    assert world.state(row) is RolloutState.BAKING


@pytest.mark.req("K40")
def test_a_truth_in_another_spelling_does_not_save_a_bad_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "predictors", lambda *_: {"topic": Oracle()})
    monkeypatch.setattr(rollout_world, "LABELS", tuple(label.title() for label in LABELS))
    world = _world()
    row = _serve(world)
    world.behaviours["1.0.1"] = Behaviour(right=0.3)
    _minutes(world, 10, requests=200)
    _asked(world, right=0.3, labels=rollout_world.LABELS)
    assert watch.look(world.ports)[0]["action"] == "rollback"
    assert world.state(row) is RolloutState.REVERTED


class Earlier:
    """A predecessor that is right on so many of a hundred requests, whose truth is a number."""

    def __init__(self, right: int) -> None:
        self._right = right

    def predict(self, texts: Sequence[str]) -> list[Any]:
        numbers = [int(text.split()[1]) for text in texts]
        return [SimpleNamespace(output=number % 4 if (37 * number) % 100 < self._right else 99) for number in numbers]


def _falls(monkeypatch: pytest.MonkeyPatch, *, judged: int, predecessor: int, own: int) -> str:
    """What the watch does about a fall from 85 to 70 % of 1,000 outcomes, with these shares of the judged requests right."""
    monkeypatch.setattr(watch, "predictors", lambda *_: {"topic": Earlier(predecessor)})
    world = _world()
    world.rollouts.slices = lambda *_, **__: {}  # type: ignore[method-assign]
    _serve(world)
    world.behaviours["1.0.1"] = Behaviour(right=0.7)
    _minutes(world, 10, requests=200)
    for number in range(judged):
        hit = float((37 * number) % 100 < own)
        one = JudgedInput(task="topic", text=f"text {number}", actual=number % 4, correct=hit)
        world.rollouts.judged.append((world.clock(), "scout", "1.0.1", one))
    return str(watch.look(world.ports)[0]["action"])


@pytest.mark.req("K40", "J91")
@pytest.mark.parametrize(
    ("judged", "predecessor", "own", "action"),
    [
        (40, 85, 70, "rollback"),  # as good as ever on the few that can be asked: no evidence is no excuse
        (12, 85, 70, "rollback"),
        (12, 85, 85, "rollback"),  # alike on too few
        (100, 78, 55, "rollback"),  # a little harder, but it would do far better
        (100, 70, 70, "hold"),  # traffic turned harder for both
        (40, 55, 55, "hold"),
        (100, 85, 85, "hold"),  # on a hundred requests it answers like the one before
    ],
)
def test_only_evidence_that_traffic_turned_harder_keeps_a_champion_that_fell(
    monkeypatch: pytest.MonkeyPatch, judged: int, predecessor: int, own: int, action: str
) -> None:
    assert _falls(monkeypatch, judged=judged, predecessor=predecessor, own=own) == action


@pytest.mark.req("K40", "J91")
@pytest.mark.parametrize(("predecessor", "action"), [(85, "rollback"), (20, "hold")])
def test_a_label_that_fell_is_kept_only_where_its_own_requests_turned_harder(
    monkeypatch: pytest.MonkeyPatch, predecessor: int, action: str
) -> None:
    class Named(Earlier):
        def predict(self, texts: Sequence[str]) -> list[Any]:
            named = dict(enumerate(LABELS))
            return [SimpleNamespace(output=named.get(one.output, "nothing")) for one in super().predict(texts)]

    monkeypatch.setattr(watch, "predictors", lambda *_: {"topic": Named(predecessor)})
    world = _world()
    _serve(world)
    world.behaviours["1.0.1"] = Behaviour(by_label={"sports": 0.4})
    _minutes(world, 10, requests=200)
    for number in range(2, 50, 4):  # twelve of that label
        hit = float((37 * number) % 100 < (45 if action == "rollback" else 20))
        one = JudgedInput(task="topic", text=f"text {number}", actual="sports", correct=hit)
        world.rollouts.judged.append((world.clock(), "scout", "1.0.1", one))
    assert watch.look(world.ports)[0]["action"] == action


# trouble of one agent


def _refuses(*_: Any) -> Any:
    raise NotConfigured("a setting", "set it")


class Mute:
    """A model that answers nothing."""

    def predict(self, texts: Sequence[str]) -> list[Any]:
        raise RuntimeError(f"no answer to {texts[0]}")


def _bad_bake(world: RolloutWorld) -> RolloutRow:
    row = _serve(world)
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    _minutes(world, 2)
    _asked(world)
    return row


@pytest.mark.req("K40", "J91")
@pytest.mark.parametrize("loads", [_refuses, lambda *_: {"topic": Mute()}, lambda *_: {"gone": Mute()}])
def test_a_predecessor_that_cannot_be_asked_does_not_save_a_bad_champion(
    loads: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "predictors", loads)
    world = _world()
    row = _bad_bake(world)
    assert watch.look(world.ports)[0]["action"] == "rollback"
    assert world.state(row) is RolloutState.REVERTED
    assert "text 99" not in caplog.text


@pytest.mark.req("K40", "J91")
def test_a_task_that_was_taken_out_of_the_fleet_does_not_save_a_bad_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "predictors", lambda *_: {"old": Oracle()})
    world = _world()
    row = _bad_bake(world)
    world.rollouts.judged = [(at, of, by, replace(one, task="old")) for at, of, by, one in world.rollouts.judged]
    assert watch.look(world.ports)[0]["action"] == "rollback"
    assert world.state(row) is RolloutState.REVERTED


@pytest.mark.req("K40")
def test_one_agents_trouble_keeps_the_watch_from_no_other(caplog: pytest.LogCaptureFixture) -> None:
    world = _world()
    first = _serve(world)
    others = [
        world.rollouts.open(agent=name, version="1.0.0", plan=world.plan, run_id=name) for name in ("desk", "ring")
    ]
    for other in others:
        world.rollouts.promote_full(other.id, actor="perennial", reason="test")
    asked = world.rollouts.stats

    def stats(agent: str, *args: Any, **named: Any) -> Any:
        if agent == "desk":
            raise KeyError("ana@example.com")
        return asked(agent, *args, **named)

    world.rollouts.stats = stats  # type: ignore[method-assign]
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    _minutes(world, 2)
    with pytest.raises(WatchIncomplete, match=r"desk \(KeyError\)") as told:
        watch.look(world.ports)
    assert world.state(first) is RolloutState.REVERTED
    assert "ring" not in str(told.value)
    assert "ana@example.com" not in str(told.value) + caplog.text
    assert told.value.__cause__ is None


class Blocked(Folder):
    """A folder whose link's place holds real files, until somebody moves them away."""

    blocked = True

    def point(self, agent: str, version: str, folder: Path) -> None:
        if self.blocked:
            raise RolloutError("it holds real files, not a link; move them away")
        super().point(agent, version, folder)


@pytest.fixture
def genuine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles whose bytes are as signed; that verification has tests of its own."""
    monkeypatch.setattr("perennial.flows.rollout.bundle_folder", lambda *_: Path())


def _on_folder(folder: Folder, **changes: Any) -> RolloutWorld:
    both = replace(PLAN, targets=("gateway", "folder"), **changes)
    world = make_rollout_world(rollout=both, targets={"folder": folder})
    world.champion("1.0.0")
    _minutes(world, 10)
    return world


@pytest.mark.req("K40", "J110")
def test_a_revert_is_audited_although_its_targets_do_not_follow_and_they_follow_later(genuine: None) -> None:
    folder = Blocked()
    folder.blocked = False
    world = _on_folder(folder)
    row = _serve(world)
    assert folder.pointed == {"scout": "1.0.1"}
    folder.blocked = True
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    _minutes(world, 2)
    for _ in range(3):
        with pytest.raises(WatchIncomplete, match=r"scout \(RolloutError\)"):
            watch.look(world.ports)
        world.clock.move(3600.0)
        assert world.state(row) is RolloutState.REVERTED
        assert world.audited("1.0.1") == ["promoted", "targets_behind", "bake_reverted"]
        assert watch.something_bakes(world.ports)
    folder.blocked = False
    for _ in range(2):
        watch.look(world.ports)
        world.clock.move(60.0)
    assert folder.pointed == {"scout": "1.0.0"}
    assert world.audited("1.0.1") == ["promoted", "targets_behind", "bake_reverted", "targets_aligned"]
    assert [one.detail["why"] for one in world.audit.entries("scout") if one.action == "targets_behind"] == [
        "RolloutError"
    ]
    assert not watch.something_bakes(world.ports)


@pytest.mark.req("K40")
def test_a_revert_whose_aliases_do_not_follow_is_repaired_by_the_watch() -> None:
    world = _world()
    row = _serve(world)
    away = replace(world.ports, models=SimpleNamespace(align_aliases=lambda *_, **__: False))  # type: ignore[arg-type]
    rollout.revert(away, {"rollout_id": row.id}, "production disagrees")
    world.clock.move(60.0)
    assert (world.aliases["champion"], watch.look(away)) == ("1.0.1", [])
    assert world.audited("1.0.1") == ["promoted", "targets_behind", "bake_reverted"]
    watch.look(world.ports)
    assert world.aliases["champion"] == "1.0.0"
    assert not watch.something_bakes(world.ports)


@pytest.mark.req("K40")
@pytest.mark.parametrize("errors", [(), (SimpleNamespace(),)])
def test_an_agent_without_a_readable_fleet_file_goes_back_in_its_folder_too(errors: Any, genuine: None) -> None:
    folder = Folder()
    world = _on_folder(folder)
    row = _serve(world)
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    _minutes(world, 2)
    watch.look(replace(world.ports, fleet=lambda: Fleet(members=(), errors=errors)))
    assert world.state(row) is RolloutState.REVERTED
    assert folder.pointed == {"scout": "1.0.0"}


# what follows a promotion


@pytest.mark.req("K39", "J110")
@pytest.mark.parametrize("person", [None, "ana"])
def test_a_promotion_that_was_killed_after_its_move_is_finished_by_the_watch(person: str | None, genuine: None) -> None:
    folder = Folder()
    world = _on_folder(folder)
    row = world.candidate("1.0.1")
    actor, reason = (person, f"promoted by {person}: the desk waits") if person else ("perennial", "it met its plan")
    world.rollouts.promote_full(row.id, actor=actor, reason=reason)  # and here the process dies
    world.clock.move(5.0)
    watch.look(world.ports)
    assert world.audited("1.0.1") == []  # its process may be at it still
    for _ in range(2):
        world.clock.move(60.0)
        watch.look(world.ports)
    assert world.audited("1.0.1") == ["promoted"]
    assert world.audit.entries("scout")[0].actor == (person or "perennial")
    assert (folder.pointed, world.aliases["champion"]) == ({"scout": "1.0.1"}, "1.0.1")


@pytest.mark.req("K39", "D10")
def test_a_watch_that_dies_as_it_promotes_after_a_freeze_finishes_it_the_next_time(genuine: None) -> None:
    calls = _promoted_after_a_freeze(None, after=False)
    assert calls > 5
    for at in range(calls):
        for after in (False, True):
            _promoted_after_a_freeze(at, after=after)


def _promoted_after_a_freeze(at: int | None, *, after: bool) -> int:
    folder = Folder()
    both = replace(PLAN, targets=("gateway", "folder"))
    world = make_rollout_world(rollout=both, targets={"folder": folder}, freeze=("Wed 09:00/Wed 09:10",))
    world.champion("1.0.0")
    row = world.candidate("1.0.1")
    world.agreed(row, 0.95)
    assert rollout.full(world.ports, {"rollout_id": row.id})["action"] == "parked"
    world.clock.move(660.0)
    for _ in range(2):  # the canary's steps
        watch.look(world.ports)
        _minutes(world, 1, requests=600)
    world.fuse.calls, world.fuse.at, world.fuse.after = 0, at, after
    try:
        watch.look(world.ports)
    except Killed:
        world.fuse.at = None
        world.clock.move(60.0)
        watch.look(world.ports)
    calls = world.fuse.calls
    assert world.state(row) is RolloutState.BAKING
    assert world.audited("1.0.1") == ["promoted"]
    assert (folder.pointed, world.aliases["champion"]) == ({"scout": "1.0.1"}, "1.0.1")
    return calls


@pytest.mark.req("K39", "K40")
def test_a_bad_champion_goes_back_although_what_follows_its_promotion_fails(genuine: None) -> None:
    folder = Blocked()
    world = _on_folder(folder)
    row = world.candidate("1.0.1")
    world.rollouts.promote_full(row.id, actor="perennial", reason="it met its plan")
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    _minutes(world, 2)
    with pytest.raises(WatchIncomplete):
        watch.look(world.ports)
    assert world.state(row) is RolloutState.REVERTED
    assert world.audited("1.0.1") == ["targets_behind", "promoted", "targets_behind", "bake_reverted"]


@pytest.mark.req("K39")
def test_aliases_that_did_not_follow_a_promotion_follow_before_its_bake_ends() -> None:
    world = _world(bake_seconds=60.0)
    away = replace(world.ports, models=SimpleNamespace(align_aliases=lambda *_, **__: False))  # type: ignore[arg-type]
    row = world.candidate("1.0.1")
    rollout.full(away, {"rollout_id": row.id})
    for _ in range(3):
        _minutes(world, 1)
        assert watch.look(away)[0]["action"] == "hold"
    assert world.state(row) is RolloutState.BAKING
    watch.look(world.ports)
    assert (world.state(row), world.aliases["champion"]) == (RolloutState.DONE, "1.0.1")
    assert world.audited("1.0.1") == ["targets_behind", "promoted", "targets_aligned"]


@pytest.mark.req("K40", "D10")
@pytest.mark.parametrize("days", [0.05, 1, 20])
def test_a_revert_whose_machine_stayed_away_for_long_is_finished_when_it_is_back(days: float, genuine: None) -> None:
    folder = Folder()
    world = _on_folder(folder)
    row = _serve(world)
    world.rollouts.revert(row.id, reason="production disagrees", actor="perennial")  # and here the machine dies
    world.clock.move(days * 86400)
    assert watch.something_bakes(world.ports)
    watch.look(world.ports)
    assert (folder.pointed, world.aliases["champion"]) == ({"scout": "1.0.0"}, "1.0.0")
    assert world.audited("1.0.1") == ["promoted", "bake_reverted"]
    assert not watch.something_bakes(world.ports)


# targets follow what serves


@pytest.mark.req("K40")
def test_a_late_writer_of_the_targets_leaves_what_serves_by_then(genuine: None) -> None:
    folder = Folder()
    world = _on_folder(folder)
    row = _serve(world)
    point, turns = folder.point, iter([True])

    def late(agent: str, version: str, place: Path) -> None:
        if next(turns, False):  # meanwhile another process reverts, and its targets follow
            rollout.revert(world.ports, {"rollout_id": row.id}, "production disagrees")
        point(agent, version, place)

    folder.point = late  # type: ignore[method-assign]
    assert rollout.align_targets(world.ports, "scout")
    assert (folder.pointed, world.aliases) == ({"scout": "1.0.0"}, {"champion": "1.0.0", "candidate": None})


def test_targets_of_what_never_rests_are_given_up_and_tried_again() -> None:
    world = _world()
    numbers = iter(range(1000))
    restless = SimpleNamespace(champion=lambda agent: f"1.0.{next(numbers)}", candidate=lambda agent: None)
    with pytest.raises(RolloutError, match="try again"):
        rollout.align_targets(replace(world.ports, ledger=restless), "scout")  # type: ignore[arg-type]


# rollouts whose run is gone


def _canary(world: RolloutWorld) -> RolloutRow:
    row = world.candidate("1.0.1")
    world.agreed(row, 0.95)
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 0)
    return world.rollouts.get(row.id)


@pytest.mark.req("K40", "D10")
def test_a_canary_whose_run_is_gone_is_taken_out_of_traffic() -> None:
    world = _world()
    row = _canary(world)
    world.behaviours["1.0.1"] = Behaviour(errors=1.0)
    _minutes(world, 16)
    assert not watch.something_bakes(world.ports)  # 60 s of its plan and 900 more are not over
    _minutes(world, 1)
    assert watch.something_bakes(world.ports)
    (said,) = watch.look(world.ports)
    assert (said["action"], "no run carries it on" in said["reason"]) == ("rollback", True)
    serving = world.rollouts.serving("scout")
    assert (world.state(row), serving.candidate, serving.weight) == (RolloutState.REVERTED, None, 0.0)
    assert world.audited("1.0.1") == ["reverted"]
    assert world.ledger.newest_unserved("scout") is None  # it met traffic
    assert watch.look(world.ports) == []


@pytest.mark.req("K39")
def test_a_canary_whose_run_waits_as_long_as_its_plan_lets_it_is_left_alone() -> None:
    world = _world(max_hold_seconds=86400.0)
    row = _canary(world)
    _minutes(world, 24 * 60, requests=0)
    assert watch.look(world.ports) == []
    assert world.state(row) is RolloutState.CANARY
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 1)
    _minutes(world, 24 * 60, requests=0)
    assert watch.look(world.ports) == []  # each step has its own patience


@pytest.mark.req("K39")
def test_a_parked_canary_waits_for_its_person_for_days() -> None:
    world = _world(on_too_little_traffic=TooLittleTraffic.ASK)
    row = _canary(world)
    rollout.park(world.ports, row, Parked.ASK, "too little traffic")
    world.clock.move(3 * 86400.0)
    watch.look(world.ports)
    assert world.state(row) is RolloutState.CANARY


@pytest.mark.req("K39")
def test_a_run_that_moves_on_at_the_last_moment_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _world()
    row = _canary(world)
    world.clock.move(961.0)
    stale = world.rollouts.get(row.id)
    rollout.full(world.ports, {"rollout_id": row.id})
    monkeypatch.setattr(world.rollouts, "running", lambda: [stale])
    assert [one["action"] for one in watch.look(world.ports)] == ["hold", "hold"]
    assert (world.state(row), world.rollouts.serving("scout").champion) == (RolloutState.BAKING, "1.0.1")
    assert world.audited("1.0.1") == ["promoted"]


@pytest.mark.req("K39", "D10")
def test_a_release_whose_run_was_gone_before_any_traffic_is_rolled_out_again_a_few_times() -> None:
    world = _world(breaker=Breaker(refused=3))
    runs = MemoryRuns()
    ports = replace(world.ports, runs=runs)
    world.ledger.release("scout", "1.0.1")
    for number in (1, 2, 3):
        waiting = world.ledger.newest_unserved("scout")
        assert waiting is not None
        row = world.rollouts.open(agent="scout", version=waiting.version, plan=world.plan, run_id=f"run-{number}")
        world.rollouts.begin_shadow(row.id)
        world.clock.move(5 * 3600.0)
        assert watch.look(ports) == []  # it may queue behind trainings
        world.clock.move(3700.0)
        assert watch.look(ports)[0]["action"] == "rollback"
        assert world.state(row) is RolloutState.REVERTED
    assert list(runs.runs) == [("rollout_scout", "again__1.0.1__1"), ("rollout_scout", "again__1.0.1__2")]
    assert "train a new version" in world.rollouts.get(row.id).reason
    assert world.ledger.newest_unserved("scout") is None
    assert world.audited("1.0.1") == ["reverted"] * 3
    assert pause_of(ports, "scout") is None  # nobody refused it


@pytest.mark.req("K39", "D10")
@pytest.mark.parametrize("away", [True, False])
def test_a_rollout_whose_run_failed_before_any_traffic_does_not_wait_for_hours(away: bool) -> None:
    world = _world(max_hold_seconds=86400.0)
    runs = MemoryRuns()
    ports = replace(world.ports, runs=runs)
    row = world.candidate("1.0.1")  # its run could not fetch the bundle, and failed
    runs.runs["rollout_scout", row.run_id] = world.clock()
    world.clock.move(600.0)
    runs.broken = {("rollout_scout", row.run_id)}
    assert watch.look(ports) == []  # Airflow may try again
    world.clock.move(600.0)
    if away:
        runs.failed = runs.start = _airflow_away  # type: ignore[method-assign]
        assert watch.look(ports) == []
        world.clock.move(6 * 3600.0)
    watch.look(ports)
    assert world.state(row) is RolloutState.REVERTED
    assert (("rollout_scout", "again__1.0.1__1") in runs.runs) is not away
    assert world.ledger.newest_unserved("scout") is not None


def _airflow_away(*_: Any) -> Any:
    raise StoreUnavailable("Airflow is away")


@pytest.mark.req("K39", "D10")
def test_a_watch_that_dies_as_it_gives_a_rollout_up_ends_it_once() -> None:
    calls = _given_up(None, after=False)
    assert calls > 5
    for at in range(calls):
        for after in (False, True):
            _given_up(at, after=after)


def _given_up(at: int | None, *, after: bool) -> int:
    world = _world()
    runs = MemoryRuns()
    ports = replace(world.ports, runs=Fused(runs, world.fuse))  # type: ignore[arg-type]
    world.candidate("1.0.1")
    world.clock.move(7 * 3600.0)
    world.fuse.calls, world.fuse.at, world.fuse.after = 0, at, after
    try:
        watch.look(ports)
    except Killed:
        world.fuse.at = None
        world.clock.move(60.0)
        watch.look(ports)
    calls = world.fuse.calls
    assert world.audited("1.0.1") == ["reverted"]
    assert list(runs.runs) == [("rollout_scout", "again__1.0.1__1")]
    assert world.ledger.newest_unserved("scout") is not None
    return calls
