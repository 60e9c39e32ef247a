"""Every change of what serves, as a pure function: what was there -> what will be there.

Stores lock an agent, hand over the ``Scene``, and write the ``Change`` in one transaction: rollout rows, the serving
row, alias moves and the notification to the gateways stand or fall together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from perennial.domain.model import SemanticVersion
from perennial.domain.words import Parked, RolloutState
from perennial.errors import RolloutError
from perennial.rollout import machine
from perennial.rollout.machine import OPEN
from perennial.rollout.rows import RolloutRow, ServingRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What is known under the lock: the serving row, open and baking rollouts, and former champions.

    ``champions``: versions that served as champion, newest first; ``reverted``: those whose last rollout was reverted,
    and that no person put back since; ``cut_short``: last rollouts of former champions whose bake a newer champion ended.
    """

    serving: ServingRow
    rollouts: tuple[RolloutRow, ...]
    champions: tuple[str, ...]
    reverted: frozenset[str]
    now: datetime
    cut_short: tuple[RolloutRow, ...] = ()

    def before(self, version: str | None) -> str | None:
        """The newest sound champion older than ``version``; None when there is none."""
        for former in self.champions:
            if former not in self.reverted and version is not None and _older(former, version):
                return former
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What to write: the serving row (unchanged: no new epoch) and the rollout rows that moved."""

    serving: ServingRow
    moved: tuple[RolloutRow, ...] = ()


def opening(scene: Scene, version: str) -> Change:
    """Make ``version`` the candidate at weight 0, so that gateways verify and load it; an older open one gives way.

    RolloutError when it serves already or a newer candidate is open. The new rollout row itself is the store's to
    insert.
    """
    _parse(version)
    if scene.serving.champion == version:
        raise RolloutError(f"{scene.serving.agent} {version} serves already; nothing is to be rolled out")
    moved = []
    for row in scene.rollouts:
        if row.state not in OPEN:
            continue
        if _older(version, row.version):
            raise RolloutError(f"{row.agent} {row.version} is newer and in rollout; {version} stays out of traffic")
        moved.append(row.moved(machine.to_superseded(row.status, f"{version} is newer", scene.now)))
    return Change(serving=replace(scene.serving, candidate=version, weight=0.0), moved=tuple(moved))


def shadowing(scene: Scene, row: RolloutRow) -> Change:
    """Begin the replay of recorded requests; serving stays as it is."""
    return Change(serving=scene.serving, moved=_if_new(row, row.moved(machine.to_shadow(row.status, scene.now))))


def stepping(scene: Scene, row: RolloutRow, step: int, weight: float) -> Change:
    """Give the candidate the share of one canary step. RolloutError when ``weight`` is not the frozen plan's."""
    status = machine.to_step(row.status, row.plan, step, scene.now)
    if abs(status.weight - weight) > 1e-6:
        raise RolloutError(f"step {step} of this plan has the share {status.weight}, not {weight}")
    serving = replace(scene.serving, candidate=row.version, weight=status.weight, rollout_id=row.id)
    return Change(serving=serving, moved=_if_new(row, row.moved(status)))


def promoting(scene: Scene, row: RolloutRow) -> Change:
    """Make the candidate the champion; the former one stays hot as ``previous``, and an older bake ends.

    ``previous`` of the rollout is then the champion that it replaces: the one of its start may have been taken back meanwhile.
    """
    after = row.moved(machine.to_full(row.status, scene.now))
    if after == row:
        return Change(serving=scene.serving)
    after = replace(after, previous=scene.serving.champion)
    reason = f"{row.version} serves now"
    ended = [
        other.moved(machine.to_superseded(other.status, reason, scene.now))
        for other in scene.rollouts
        if other.id != row.id and other.state is RolloutState.BAKING
    ]
    serving = replace(
        scene.serving, champion=row.version, previous=scene.serving.champion, candidate=None, weight=0.0,
        rollout_id=row.id,
    )  # fmt: skip
    return Change(serving=serving, moved=(after, *ended))


def parking(scene: Scene, row: RolloutRow, why: Parked, reason: str) -> Change:
    """Say that no run carries an open rollout on; its share stays. RolloutError once it serves everything or ended."""
    if row.state not in OPEN:
        raise RolloutError(f"{row.agent} {row.version} is {row.state.value}; only an open rollout can wait")
    return Change(serving=scene.serving, moved=_if_new(row, replace(row, parked=why, reason=reason)))


def finishing(scene: Scene, row: RolloutRow) -> Change:
    """End a bake well; serving stays as it is."""
    return Change(serving=scene.serving, moved=_if_new(row, row.moved(machine.to_done(row.status, scene.now))))


def reverting(scene: Scene, row: RolloutRow, reason: str, seen: RolloutRow | None = None) -> Change:
    """Take a version out of traffic: clear it as candidate, or put its predecessor back when it is the champion.

    A predecessor whose bake it had cut short bakes on. A newer candidate keeps its share and begins its step anew, beside the
    champion that answers now. With ``seen``, nothing happens to a row that is not as it was seen.

    RolloutError when the champion has no predecessor: something must answer, and a person must decide.
    """
    if seen not in (None, row):
        return Change(serving=scene.serving)
    after = row.moved(machine.to_reverted(row.status, reason, scene.now))
    if after == row:
        return Change(serving=scene.serving)
    serving = scene.serving
    if row.state in OPEN:
        serving = replace(serving, candidate=None, weight=0.0)
    elif serving.champion == row.version:
        target = row.previous if row.previous not in scene.reverted else None
        target = target or scene.before(row.version)
        if target is None:
            raise RolloutError(f"{row.agent} {row.version} has no predecessor to put back; release a better version")
        scene = replace(scene, reverted=scene.reverted | {row.version})
        serving = replace(serving, champion=target, previous=scene.before(target))
        beside = [
            other.moved(machine.to_step_again(other.status, scene.now))
            for other in scene.rollouts
            if other.state in OPEN
        ]
        return Change(serving=serving, moved=(after, *beside, *_bakes_on(scene, target)))
    return Change(serving=serving, moved=(after,))


def rolling_back(scene: Scene, version: str, reason: str) -> Change:
    """A person's order: serve ``version`` again and take everything newer out of traffic. A bake that was cut short goes on.

    RolloutError when it never was a champion (it has not passed a rollout) or serves already.
    """
    serving = scene.serving
    if version == serving.champion:
        raise RolloutError(f"{serving.agent} serves {version} already")
    if version not in scene.champions:
        known = ", ".join(dict.fromkeys(scene.champions)) or "none"
        raise RolloutError(f"{serving.agent} {version} never was the champion; former champions: {known}")
    gone = [row for row in scene.rollouts if row.state in OPEN or row.version == serving.champion]
    moved = tuple(row.moved(machine.to_reverted_by_hand(row.status, reason, scene.now)) for row in gone)
    scene = replace(scene, reverted=scene.reverted | {row.version for row in gone})
    serving = replace(
        serving, champion=version, previous=scene.before(version), candidate=None, weight=0.0, rollout_id=None
    )
    return Change(serving=serving, moved=(*moved, *_bakes_on(scene, version)))


def _bakes_on(scene: Scene, version: str) -> tuple[RolloutRow, ...]:
    """The bake of a version that serves again, when a newer champion had ended it before its time."""
    return tuple(
        row.moved(machine.to_baking_again(row.status, scene.now)) for row in scene.cut_short if row.version == version
    )


def _if_new(before: RolloutRow, after: RolloutRow) -> tuple[RolloutRow, ...]:
    return () if before == after else (after,)


def _older(first: str, second: str) -> bool:
    return _parse(first) < _parse(second)


def _parse(version: str) -> SemanticVersion:
    try:
        return SemanticVersion.parse(version)
    except ValueError as error:
        raise RolloutError(str(error)) from error
