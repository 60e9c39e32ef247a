"""Each alert is caused, told once, and over when its cause is; in memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest

from perennial.alerts.channel import MemoryChannel
from perennial.alerts.kinds import Kind
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Mode, Reason
from perennial.errors import AlertUndelivered, StoreUnavailable
from perennial.flows import alerts, due, fleet_sync, sealing, train
from perennial.retention.airflow_runs import AirflowRuns
from perennial.settings import Settings
from perennial.storage import airflow_link
from tests.integration.alerts.conftest import Deployment


def failed(world: Deployment) -> None:
    world.train(status=JobStatus.FAILED)


def trained(world: Deployment) -> None:
    world.train()


def failed_run(world: Deployment) -> None:
    world.runs.runs[("harvest", "run-1")] = datetime.now(UTC)
    world.runs.broken.add(("harvest", "run-1"))


def good_run(world: Deployment) -> None:
    world.runs.runs[("harvest", "run-2")] = datetime.now(UTC)


def held(world: Deployment) -> None:
    world.judge("hold")


def passed(world: Deployment) -> None:
    world.judge("pass")


def reverted(world: Deployment) -> None:
    world.roll_out("1.0.0", well=True)
    world.roll_out("1.0.1", well=False)


def rolled_out(world: Deployment) -> None:
    world.roll_out("1.0.2", well=True)


def refused_three_times(world: Deployment) -> None:
    for _ in range(3):
        world.judge("hold")


def reset(world: Deployment) -> None:
    world.ports.rollouts.reset_breaker("scout", actor="ana", reason="repaired")
    world.judge("pass")


def spent(world: Deployment) -> None:
    world.train(seconds=120.0)


def given_more(world: Deployment) -> None:
    place = world.ports.settings.fleet_folder / "scout.py"
    place.write_text(place.read_text().replace("day_seconds=100.0", "day_seconds=1000.0"))


def nothing_came(world: Deployment) -> None:
    world.add_row()
    world.with_settings(alert_quiet_hours=1e-9)


def something_came(world: Deployment) -> None:
    world.with_settings(alert_quiet_hours=1.0)
    world.add_row()


def stuck(world: Deployment) -> None:
    world.begin(lease=-1.0)


def swept(world: Deployment) -> None:
    world.train()


def tampered(world: Deployment) -> None:
    world.ports.audit.append(actor="ana", action="approved", agent="scout")
    sealing.seal(world.ports)
    world.tamper()
    assert alerts.verify_audit(world.ports) is False


def restored(world: Deployment) -> None:
    world.ports.alerts.note_check(alerts.AUDIT_CHECK, ok=True)


Act = Callable[[Deployment], None]
CASES: dict[str, tuple[Kind, Act, Act]] = {
    "failure of a training": (Kind.FAILURE, failed, trained),
    "failure of a run": (Kind.FAILURE, failed_run, good_run),
    "hold": (Kind.HOLD, held, passed),
    "rollback": (Kind.ROLLBACK, reverted, rolled_out),
    "breaker": (Kind.BREAKER, refused_three_times, reset),
    "budget": (Kind.BUDGET, spent, given_more),
    "quiet": (Kind.QUIET, nothing_came, something_came),
    "lease": (Kind.LEASE, stuck, swept),
    "audit": (Kind.AUDIT, tampered, restored),
}


@pytest.mark.req("J107", "J108")
@pytest.mark.parametrize("case", CASES)
def test_each_alert_is_caused_told_once_and_over(deployment: Deployment, case: str) -> None:
    kind, cause, repair = CASES[case]
    channel = MemoryChannel()
    assert alerts.tick(deployment.ports, channel)["open"] == 0
    cause(deployment)
    alerts.tick(deployment.ports, channel)
    alerts.tick(deployment.ports, channel)
    mine = [one for one in channel.sent if one.kind is kind]
    assert len(mine) == 1
    assert mine[0].runbook == f"docs/runbooks/{kind.value}.md"
    assert "A text" not in mine[0].told()
    repair(deployment)
    outcome = alerts.tick(deployment.ports, channel)
    assert kind.value not in outcome["kinds"]
    assert len([one for one in channel.sent if one.kind is kind]) == 1


def test_every_kind_has_a_case() -> None:
    assert {kind for kind, _, _ in CASES.values()} == set(Kind)


@pytest.mark.req("J107")
def test_an_alert_is_told_when_the_channel_is_back(deployment: Deployment) -> None:
    channel = MemoryChannel()
    channel.away = True
    held(deployment)
    outcome = alerts.tick(deployment.ports, channel)
    assert (outcome["told"], outcome["undelivered"]) == (0, "the channel is away")
    assert alerts.tick(deployment.ports, None)["told"] == 0  # no connection: it stays in the list
    channel.away = False
    passed(deployment)  # over meanwhile, and still told
    assert alerts.tick(deployment.ports, channel)["told"] == 1
    assert channel.sent[0].cleared_at is not None


def test_a_kill_between_telling_and_marking_tells_it_twice_and_never_loses_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = MemoryChannel()
    held(deployment)

    def killed(alert_id: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deployment.ports.alerts, "delivered", killed)
        with pytest.raises(KeyboardInterrupt):
            alerts.tick(deployment.ports, channel)
    alerts.tick(deployment.ports, channel)
    alerts.tick(deployment.ports, channel)
    assert [one.id for one in channel.sent] == [channel.sent[0].id] * 2


def test_without_airflow_its_alerts_stay_and_the_others_go_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = MemoryChannel()
    failed_run(deployment)
    alerts.tick(deployment.ports, channel)

    def away(since: datetime) -> list[tuple[str, str]]:
        raise StoreUnavailable("Airflow is away")

    monkeypatch.setattr(deployment.runs, "failed", away)
    held(deployment)
    outcome = alerts.tick(deployment.ports, channel)
    assert outcome["kinds"] == {"failure": 1, "hold": 1}


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b"{}"])
def test_what_answers_in_airflows_place_stops_no_alert(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    channel = MemoryChannel()
    failed_run(deployment)
    alerts.tick(deployment.ports, channel)
    settings = Settings(airflow_url="http://127.0.0.1:9", airflow_token="t")  # type: ignore[arg-type]
    deployment.ports = replace(deployment.ports, runs=AirflowRuns(settings))
    monkeypatch.setattr(airflow_link, "urlopen", lambda *_, **__: BytesIO(answer))
    held(deployment)
    assert alerts.tick(deployment.ports, channel)["kinds"] == {"failure": 1, "hold": 1}
    assert [one.kind for one in channel.sent] == [Kind.FAILURE, Kind.HOLD]


def _write_fleet_file(world: Deployment, text: str) -> str:
    """Replace scout's file, and tell the store as the data plane does; returns what was there."""
    place = world.ports.settings.fleet_folder / "scout.py"
    before = place.read_text()
    place.write_text(text)
    fleet_sync.sync(world.ports)
    return before


@pytest.mark.parametrize("case", [name for name in CASES if name != "audit"])
def test_a_broken_fleet_file_closes_no_alert_and_its_repair_tells_nothing_twice(
    deployment: Deployment, case: str
) -> None:
    kind, cause, repair = CASES[case]
    channel = MemoryChannel()
    cause(deployment)
    before = alerts.tick(deployment.ports, channel)["kinds"]
    assert kind.value in before
    sound = _write_fleet_file(deployment, "def def")
    assert alerts.tick(deployment.ports, channel)["kinds"] == before
    _write_fleet_file(deployment, sound)
    told = len(channel.sent)
    assert alerts.tick(deployment.ports, channel)["kinds"] == before
    assert len(channel.sent) == told
    repair(deployment)
    assert kind.value not in alerts.tick(deployment.ports, channel)["kinds"]


@pytest.mark.parametrize("case", ["failure of a training", "hold", "rollback", "quiet", "lease"])
def test_what_needs_no_fleet_file_is_raised_and_closed_while_it_is_broken(deployment: Deployment, case: str) -> None:
    kind, cause, repair = CASES[case]
    channel = MemoryChannel()
    _write_fleet_file(deployment, "def def")
    cause(deployment)
    alerts.tick(deployment.ports, channel)
    assert [one.kind for one in channel.sent] == [kind]
    repair(deployment)
    assert alerts.tick(deployment.ports, channel)["open"] == 0


def test_an_agent_whose_file_is_gone_is_told_of_no_more(deployment: Deployment) -> None:
    held(deployment)
    assert alerts.tick(deployment.ports, None)["open"] == 1
    (deployment.ports.settings.fleet_folder / "scout.py").unlink()
    fleet_sync.sync(deployment.ports)
    assert alerts.tick(deployment.ports, None)["open"] == 0


def test_a_failed_training_is_told_once_and_not_again_as_its_run(deployment: Deployment) -> None:
    job_id = deployment.train(status=JobStatus.FAILED)
    run = deployment.ports.buffer.run_of_job(job_id)
    deployment.runs.runs[("train_scout", run)] = datetime.now(UTC)
    deployment.runs.broken.add(("train_scout", run))
    assert alerts.tick(deployment.ports, MemoryChannel())["kinds"] == {"failure": 1}


def test_the_audit_is_walked_once_a_day(deployment: Deployment) -> None:
    deployment.ports.audit.append(actor="ana", action="approved", agent="scout")
    assert alerts.verify_audit(deployment.ports) is True
    assert alerts.verify_audit(deployment.ports) is None


# what a spent budget does to trainings


def _claim(world: Deployment, reason: Reason, run: str, **more: Any) -> Any:
    return train.claim(world.ports, JobRequest(agent="scout", run_id=run, reason=reason, mode=Mode.AUTO, **more))


@pytest.mark.req("J107")
def test_trainings_by_threshold_and_night_wait_for_the_budget_and_say_so(deployment: Deployment) -> None:
    spent(deployment)
    assert _claim(deployment, Reason.SCHEDULE, "night") is None
    job = deployment.ports.buffer.job_of_run("scout", "night")
    assert job is not None
    assert (job.status, job.attempt) == (JobStatus.CANCELLED, 0)
    assert "the training budget is spent: 120 of 100 seconds" in job.note
    # the task of that run again: it still waits
    assert _claim(deployment, Reason.SCHEDULE, "night") is None
    # what a person asks for does not wait; nothing is in the buffer, so it ends for that reason
    assert _claim(deployment, Reason.REQUEST, "wish") is None
    wish = deployment.ports.buffer.job_of_run("scout", "wish")
    assert wish is not None
    assert "nothing to train" in wish.note
    assert _claim(deployment, Reason.SCHEDULE, "forced", force=True) is None
    forced = deployment.ports.buffer.job_of_run("scout", "forced")
    assert forced is not None
    assert "nothing to train" in forced.note


@pytest.mark.req("J107")
def test_the_watcher_finds_no_agent_due_whose_budget_is_spent_but_for_corrections_up_to_their_own_limit(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, Reason]] = [("scout", Reason.THRESHOLD)]
    monkeypatch.setattr(deployment.ports.buffer, "due_agents", lambda: found)
    assert due.due_agents(deployment.ports) == found
    spent(deployment)
    assert due.due_agents(deployment.ports) == []
    found[:] = [("scout", Reason.CORRECTION)]
    assert due.due_agents(deployment.ports) == found
    deployment.train(seconds=80.0)  # 200 of 200
    assert due.due_agents(deployment.ports) == []
    found[:] = [("scout", Reason.REQUEST)]
    assert due.due_agents(deployment.ports) == found


def test_seconds_of_training_alone_count_by_attempt(deployment: Deployment) -> None:
    job_id, attempt = deployment.begin()
    deployment.ports.jobs.add_cost(job_id, attempt, {"train.news": 5.0, "gate": 50.0})
    deployment.ports.jobs.add_cost(job_id, attempt, {"train.quality": 2.0})
    deployment.ports.jobs.add_cost(job_id, attempt + 1, {"train.news": 500.0})  # a stale attempt
    assert deployment.ports.jobs.training_seconds("scout") == (7.0, 7.0)
    assert deployment.ports.jobs.training_seconds("critic") == (0.0, 0.0)
    (entry,) = deployment.ports.jobs.recent("scout", 3600.0)
    assert (entry.cost["train.quality"], entry.finished) == (2.0, False)


def test_a_channel_error_is_ours() -> None:
    channel = MemoryChannel()
    channel.away = True
    with pytest.raises(AlertUndelivered):
        channel.send(None)  # type: ignore[arg-type]
