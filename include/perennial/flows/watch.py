"""Keeps watching recent champions after 100 %, and puts the predecessor back when production disagrees. Looks after parked
rollouts, ends those whose run is gone, and finishes what was killed half-way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import sqrt
from typing import Any, TypeAlias

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import Parked, RolloutAction, RolloutState
from perennial.errors import PerennialError, WatchIncomplete
from perennial.flows.live_evidence import beside, refused_by_gateway
from perennial.flows.ports import Ports
from perennial.flows.rollback import REPAIRED_SECONDS, settle_killed
from perennial.flows.rollout import (
    ACTOR,
    PARKED,
    align_targets,
    assess,
    begin_step,
    canary_shares,
    freeze_of,
    full,
    is_promoted,
    is_settled,
    predictors,
    revert,
    settle_revert,
)
from perennial.flows.rollout import look as look_at_step
from perennial.registry.rows import LOST, LOST_TRIES
from perennial.rollout.agreement import correctness
from perennial.rollout.rows import RolloutRow
from perennial.rollout.sequential import variance_of_mean
from perennial.rollout.slices import SliceStats
from perennial.rollout.verdict import MIN_OUTCOMES, ArmStats, Beside, judge_bake

logger = logging.getLogger(__name__)

RECENT = (100, 1000)  # newest answers judged alone, so that a long good past cannot hide a bad present
REPLAYED = 200  # newest requests that the predecessor answers before anything is put back
LIKELY = 1.0  # standard errors: 5 in 6, for what excuses a champion until the next look only; a sound one needs it at every look
GRACE_SECONDS = 15.0
# A step ends when its plan's patience does, and Airflow stops one that does not 300 s later: after this long beyond it, no run is left.
GONE_SECONDS = 900.0
# Before traffic nothing is at risk, and a replay may queue for hours behind trainings: only after this long is a run given up unasked.
QUEUE_SECONDS = 6 * 3600.0

_Pairs: TypeAlias = list[tuple[float, float]]  # how right the predecessor and the champion were on the same requests
_Duty = Callable[[Ports, RolloutRow], dict[str, Any] | None]  # what the watch does for one rollout


def something_bakes(ports: Ports) -> bool:
    """Whether anything is to watch: a recent champion, a parked rollout, one without a run, or a revert that was not finished.

    Indexed looks, and one at the audit for each revert of the last weeks.
    """
    rollouts = ports.rollouts
    return bool(rollouts.baking() or rollouts.parked() or _stranded(ports) or _unsettled(ports))


def _unsettled(ports: Ports) -> list[RolloutRow]:
    """Reverts that are not audited, or whose targets stayed behind, but for those that a live task may be finishing at this moment."""
    edge = _edge(ports)
    gone = [row for row in ports.rollouts.reverted_lately(REPAIRED_SECONDS) if row.ended_at and row.ended_at <= edge]
    return [row for row in gone if not is_settled(ports, row)]


def _stranded(ports: Ports) -> list[RolloutRow]:
    """Open rollouts that no run carries on any more, though they are not parked: it was deleted, or failed without a last word."""
    now = ports.rollouts.now()
    return [row for row in ports.rollouts.running() if _is_gone(ports, row, (now - row.step_at).total_seconds())]


def _is_gone(ports: Ports, row: RolloutRow, waited: float) -> bool:
    """Whether its run must be gone, by its plan's own patience. One without traffic may queue, unless Airflow says that its run failed."""
    if row.state is RolloutState.CANARY:
        return waited > row.plan.max_hold_seconds + GONE_SECONDS
    return waited > QUEUE_SECONDS or (waited > GONE_SECONDS and _run_failed(ports, row))


def _run_failed(ports: Ports, row: RolloutRow) -> bool:
    try:
        return ports.runs is not None and (_dag(row), row.run_id) in ports.runs.failed(row.started_at)
    except Exception:  # noqa: BLE001 - away, not configured, or another answer than ours: without Airflow's word the clock decides
        return False


def _dag(row: RolloutRow) -> str:
    return f"rollout_{row.agent}"


def _edge(ports: Ports) -> datetime:
    """What was moved after this may be finished by a live task at this moment."""
    return ports.rollouts.now() - timedelta(seconds=GRACE_SECONDS)


def _on_equal_terms(
    ports: Ports, row: RolloutRow, against: str, before: ArmStats, now: ArmStats, elapsed: float, others: Beside,
    recent: Sequence[ArmStats],
) -> RolloutVerdict | None:  # fmt: skip
    """The verdict again, with the version ``against`` answering the very requests that the champion got.

    Traffic itself can turn harder (a new topic, drift): then that version would do no better, and going back helps nobody. None when
    too few requests with a known truth are recorded to ask, or that version cannot be asked, whatever the reason: then the first
    verdict stands. Quality, and that of each label, keeps its first numbers unless its requests show that they are no longer a fair
    comparison (``_excuses``); so do errors and latency, of the newest answers too: requests say nothing of those.
    """
    try:
        return _replayed(ports, row, against, before, now, elapsed, others, recent)
    except Exception as error:  # noqa: BLE001 - a fleet file, a registry or a model may fail in any way; the champion is bad all the same
        logger.warning(
            "%s %s cannot be asked the same requests, so the first verdict stands: %s", row.agent, against, _kind(error)
        )
        return None


def _replayed(
    ports: Ports, row: RolloutRow, against: str, before: ArmStats, now: ArmStats, elapsed: float, others: Beside,
    recent: Sequence[ArmStats],
) -> RolloutVerdict | None:  # fmt: skip
    """What ``_on_equal_terms`` asks; raises whatever keeps that version from answering."""
    asked = ports.rollouts.judged_inputs(row.agent, row.version, since=row.full_at or row.started_at, limit=REPLAYED)
    if len(asked) < MIN_OUTCOMES:
        return None
    agent = ports.fleet().agent(row.agent)
    models = predictors(ports, agent, against)
    pairs: _Pairs = []
    by_label: dict[str, _Pairs] = {}
    for task in sorted({one.task for one in asked} & models.keys()):
        mine = [one for one in asked if one.task == task]
        answers = models[task].predict([one.text for one in mine])
        kind = agent.task(task).kind
        for answer, one in zip(answers, mine, strict=True):
            score = correctness(kind, answer.output, one.actual)
            pairs.append((score, one.correct))
            if isinstance(one.actual, str):
                by_label.setdefault(f"{task}: {one.actual}", []).append((score, one.correct))
    rows = len(pairs)
    if rows < MIN_OUTCOMES:
        return None
    right, own = (sum(pair[arm] for pair in pairs) for arm in (0, 1))
    logger.info(
        "%s: on the same %s requests %s has %.0f right, %s would have %.0f",
        row.agent,
        rows,
        row.version,
        own,
        against,
        right,
    )
    if _excuses(pairs, before.correct_sum, before.outcomes, row.plan.max_agreement_drop):
        before = replace(before, outcomes=rows, correct_sum=right)
        now = replace(now, outcomes=rows, correct_sum=own)
        recent = [replace(one, outcomes=0, correct_sum=0.0) for one in recent]  # how right it was, the replay says
    fair = _fair(others, by_label, row.plan.max_slice_drop)
    return judge_bake(row.plan, before, now, elapsed=elapsed, recent=recent, beside=fair)


def _excuses(pairs: _Pairs, former_sum: float, former: int, allowed: float) -> bool:
    """Whether requests that both answered speak for the champion: the predecessor fell on them too, nearer to the champion than to its
    former self, or the champion is not worse than ``allowed`` on them. That they are few says nothing; the first numbers stand then.
    """
    rows = len(pairs)
    if min(rows, former) < MIN_OUTCOMES:
        return False
    right = sum(old for old, _ in pairs)
    fall = former_sum / former - right / rows
    drop = sum(old - new for old, new in pairs) / rows
    fell = fall > LIKELY * sqrt(variance_of_mean(former_sum, former) + variance_of_mean(right, rows))
    spread = sqrt(sum((old - new) ** 2 for old, new in pairs) + 1) / (rows + 2)  # never 0, as in variance_of_mean
    return (fell and drop <= fall) or drop + LIKELY * spread < allowed


def _fair(others: Beside, by_label: dict[str, _Pairs], allowed: float) -> Beside:
    """Quality by label on the same rows, wherever those of the label excuse it."""
    fair: list[dict[str, SliceStats]] = [{}, {}]
    for name, pairs in by_label.items():
        was = others.champion.get(name)
        if was is not None and _excuses(pairs, was.correct_sum, was.outcomes, allowed):
            for arm in (0, 1):
                fair[arm][name] = SliceStats(outcomes=len(pairs), correct_sum=sum(pair[arm] for pair in pairs))
    recent = {name: stats for name, stats in others.recent.items() if name not in fair[1]}
    champion, candidate = {**others.champion, **fair[0]}, {**others.candidate, **fair[1]}
    return replace(others, champion=champion, candidate=candidate, recent=recent)


def look(ports: Ports) -> list[dict[str, Any]]:
    """Judge every baking champion and every parked rollout; reverts the bad, closes the ripe, ends what no run carries on, finishes
    what a kill left open.

    Repeatable at any time. What fails for one rollout stops no other: all are looked at, then WatchIncomplete names those that failed.
    """
    rollouts = ports.rollouts
    duties: tuple[tuple[Callable[[], list[RolloutRow]], _Duty], ...] = (
        (lambda: _unsettled(ports), _finish), (rollouts.baking, _bake), (rollouts.parked, _parked),
        (lambda: _stranded(ports), _give_up),
    )  # fmt: skip
    said: list[dict[str, Any]] = []
    failed: list[str] = []
    for rows, duty in duties:
        for row in rows():
            try:
                told = duty(ports, row)
            except Exception as error:  # noqa: BLE001 - counted, and raised below when all were looked at
                logger.warning("%s %s could not be looked after: %s", row.agent, row.version, _kind(error))
                failed.append(f"{row.agent} ({type(error).__name__})")
            else:
                said += [told] if told is not None else []
    if failed:
        raise WatchIncomplete(failed)
    return said


def _kind(error: Exception) -> str:
    """What may be logged of an error: the message of our own, of others the type alone, since their text may quote a row."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, PerennialError) else name


def _finish(ports: Ports, row: RolloutRow) -> None:
    """What a kill, or a target that did not follow, left open of a revert."""
    _roll_out_again(ports, row)
    settle_killed(ports, row)
    logger.warning("what follows the revert of %s %s had been left open and was done again", row.agent, row.version)


def assess_bake(ports: Ports, row: RolloutRow, *, replay: bool = True) -> RolloutVerdict:
    """What production says of a champion that bakes; changes nothing.

    It is held against its predecessor and, when that one's own bake was cut short, against the newest version before it that baked
    to its end: else a fault would pass from version to version, each as good as the one before. Without ``replay`` no model is
    loaded: a rollback then only says what the numbers alone say, before the predecessor answered the same requests.
    """
    refused = refused_by_gateway(ports, row)
    if refused is not None:
        return refused
    verdict = _against(ports, row, row.previous or "", replay=replay)
    proven = _proven_before(ports, row)
    if verdict.action is RolloutAction.ROLLBACK or proven in (None, row.previous):
        return verdict
    older = _against(ports, row, str(proven), replay=replay)
    if older.action is not RolloutAction.ROLLBACK:
        return verdict
    return replace(older, reason=f"beside {proven}, the last that baked to its end: {older.reason}")


def _proven_before(ports: Ports, row: RolloutRow) -> str | None:
    """The newest version before this one whose bake no newer champion cut short; None when there is none."""
    version = row.previous
    while version is not None:
        last = ports.rollouts.of_version(row.agent, version)[-1:]
        if not last or last[0].state is not RolloutState.SUPERSEDED:
            break
        version = last[0].previous
    return version


def _against(ports: Ports, row: RolloutRow, other: str, *, replay: bool) -> RolloutVerdict:
    """The bake beside one former version."""
    elapsed = ports.rollouts.seconds_since_full(row.id)
    since, delay = row.full_at or row.started_at, row.plan.label_delay_seconds
    now = ports.rollouts.stats(row.agent, row.version, since=since, label_delay=delay)
    before = ports.rollouts.stats(row.agent, other, since=None, label_delay=delay)
    recent = [
        ports.rollouts.stats(row.agent, row.version, since=since, last=last, label_delay=delay) for last in RECENT
    ]
    others = beside(ports, row, against=other, before=None, since=since, recent=max(RECENT))
    verdict = judge_bake(row.plan, before, now, elapsed=elapsed, recent=recent, beside=others)
    if replay and verdict.action is RolloutAction.ROLLBACK and other:
        return _on_equal_terms(ports, row, other, before, now, elapsed, others, recent) or verdict
    return verdict


def _bake(ports: Ports, row: RolloutRow) -> dict[str, Any]:
    """Judge one champion. First what follows its promotion, where that was left open; what fails of it is told after the verdict."""
    failed: Exception | None = None
    if row.full_at is not None and row.full_at <= _edge(ports) and not is_promoted(ports, row):
        try:
            full(ports, {"rollout_id": row.id})
        except Exception as error:  # noqa: BLE001 - a bad champion goes back all the same; raised again below
            failed = error
    said = _judge(ports, row)
    if failed is not None:
        raise failed
    return said


def _judge(ports: Ports, row: RolloutRow) -> dict[str, Any]:
    verdict = assess_bake(ports, row)
    reason, action = verdict.reason, verdict.action
    if action is RolloutAction.ROLLBACK and row.previous is not None:
        ports.rollouts.look(row.id, action=action, reason=reason, evidence=dict(verdict.evidence))
        settle_revert(ports, ports.rollouts.revert(row.id, reason=reason, actor=ACTOR))
        back = ports.rollouts.serving(row.agent).champion
        logger.warning("%s %s reverted to %s: %s", row.agent, row.version, back, reason)
    elif action is RolloutAction.PROMOTE:
        if not align_targets(ports, row.agent):  # nobody would come back for them after the bake
            return _said(row, RolloutAction.HOLD.value, f"{reason}; MLflow's aliases do not follow yet")
        ports.rollouts.close(row.id)
    return _said(row, action.value, reason)


def _said(row: RolloutRow, action: str, reason: str) -> dict[str, Any]:
    return {"agent": row.agent, "version": row.version, "action": action, "reason": reason}


def _parked(ports: Ports, row: RolloutRow) -> dict[str, Any]:
    """A rollout that no run carries on: one that is surely bad is reverted; after a freeze it goes on from here."""
    ref = {"rollout_id": row.id}
    if row.state is RolloutState.CANARY:
        verdict = assess(ports, row, patient=row.parked is Parked.ASK)
        if verdict.action is RolloutAction.ROLLBACK:
            ports.rollouts.look(row.id, action=verdict.action, reason=verdict.reason, evidence=dict(verdict.evidence))
            revert(ports, ref, verdict.reason)
            return _said(row, verdict.action.value, verdict.reason)
    if row.parked is Parked.ASK or freeze_of(ports, row.agent) is not None:
        said = {"action": PARKED, "reason": row.reason}
    else:
        said = _carry_on(ports, row, ref)
    return {"agent": row.agent, "version": row.version, **said}


def _carry_on(ports: Ports, row: RolloutRow, ref: dict[str, Any]) -> dict[str, Any]:
    following = 0
    if row.state is RolloutState.CANARY:
        said = look_at_step(ports, ref, row.step)
        if said["action"] != RolloutAction.PROMOTE.value:
            return said
        following = row.step + 1
    if following < len(canary_shares(row.plan, first=row.previous is None)):
        return begin_step(ports, ref, following)
    return {"action": RolloutAction.PROMOTE.value, "reason": full(ports, ref)["note"]}


def _give_up(ports: Ports, row: RolloutRow) -> dict[str, Any]:
    """Revert a rollout whose run is gone: nobody judges it. One that met no traffic is rolled out again, a few times."""
    waited = (ports.rollouts.now() - row.step_at).total_seconds()
    if row.state is RolloutState.CANARY:
        reason = f"no run carries it on: {waited:.0f} s at {row.weight:.0%} of the keys without a verdict; train a new version"
    else:
        again = (
            f"{_dag(row)} starts again, else trigger it" if _tries(ports, row) < LOST_TRIES else "train a new version"
        )
        reason = f"{LOST}, after {waited:.0f} s; {again}"
    gone = ports.rollouts.revert(row.id, reason=reason, actor=ACTOR, seen=row)
    if (gone.state, gone.reason) != (RolloutState.REVERTED, reason):
        return _said(row, RolloutAction.HOLD.value, "it moved on meanwhile")
    logger.warning("%s %s: %s", row.agent, row.version, reason)
    _roll_out_again(ports, gone)
    settle_revert(ports, gone)
    return _said(row, RolloutAction.ROLLBACK.value, reason)


def _tries(ports: Ports, row: RolloutRow) -> int:
    """Which rollout of its version this is, counted from 1."""
    return sum(one.id <= row.id for one in ports.rollouts.of_version(row.agent, row.version))


def _roll_out_again(ports: Ports, row: RolloutRow) -> None:
    """Start a run for the release of a rollout whose run was gone before any traffic. The same run, however often this is called."""
    tries = _tries(ports, row) if row.lost else LOST_TRIES
    if tries >= LOST_TRIES or ports.runs is None:
        return
    try:
        ports.runs.start(_dag(row), f"again__{row.version}__{tries}")
    except Exception as error:  # noqa: BLE001 - whatever Airflow answers, the rollout is closed; the alert says what a person must do
        logger.warning("%s was not started again (%s); trigger it in Airflow", _dag(row), type(error).__name__)
