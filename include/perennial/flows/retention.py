"""What may go, goes: old versions' files, old rows, leftovers on disk, Airflow's old runs. Records of decisions always stay.

Each part can be killed anywhere and run again with the same effect, and a dry run goes the same way up to the removal itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from perennial.errors import FilesRemoved, NotConfigured, RolloutError
from perennial.flows.ports import Ports
from perennial.registry.rows import Alias
from perennial.retention import disk
from perennial.retention.rules import kept_versions
from perennial.retention.store import BATCH, Left, RetentionStore, Rows

logger = logging.getLogger(__name__)

ACTOR = "perennial"
MOST_RUNS = 20_000  # DAG runs of one pass; the next day takes the rest
_ALIAS_MOVES = 10_000


class Part(StrEnum):
    """The parts of a pass, in their order: encoders are judged by the versions that are left."""

    VERSIONS = "versions"
    REFUSED = "refused"
    BASES = "bases"
    FILES = "files"
    ROWS = "rows"
    AIRFLOW = "airflow"


@dataclass(kw_only=True)
class Outcome:
    """What one part took, or would take: counts by kind, every name, what stays and why, and what it could not do."""

    part: Part
    dry_run: bool
    gone: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    bytes: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    not_done: list[str] = field(default_factory=list)

    def took(self, kind: str, name: str | None = None, count: int = 1) -> None:
        """Count what went."""
        if count:
            self.gone[kind] = self.gone.get(kind, 0) + count
        if name is not None:
            self.names.append(name)

    def counts(self) -> dict[str, Any]:
        """Small enough for XCom: counts alone, without names."""
        return {
            "part": self.part.value, "dry_run": self.dry_run, "gone": dict(self.gone), "bytes": self.bytes, "kept": len(self.kept),
            "not_done": list(self.not_done),
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        return {**self.counts(), "names": list(self.names), "kept": dict(self.kept)}


def run_part(
    ports: Ports, part: Part | str, *, dry_run: bool = False, actor: str = ACTOR, now: datetime | None = None
) -> Outcome:
    """Do one part, or with ``dry_run`` only say what it would do. ``now`` decides what is old (UTC).

    Runs in a task of the DAG ``retention`` and in ``perennial retention``. Raises what the part's store raises when it is away: nothing
    is lost by running it again. What this deployment cannot do is told in ``not_done`` and is no error.
    """
    chosen = Part(part)
    outcome = Outcome(part=chosen, dry_run=dry_run)
    _PARTS[chosen](_Pass(ports=ports, outcome=outcome, now=now or datetime.now(UTC), actor=actor))
    if outcome.gone and not dry_run:
        ports.audit.append(
            actor=actor, action="retention", subject=chosen.value,
            detail={"gone": dict(outcome.gone), "bytes": outcome.bytes},
        )  # fmt: skip
    return outcome


def told(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """One line about a pass, from the parts' counts.

    >>> told([{"dry_run": True, "gone": {"versions": 3}, "bytes": 5_400_000, "kept": 21, "not_done": ["no Airflow here"]},
    ...       {"dry_run": True, "gone": {"predictions": 120}, "bytes": 0, "kept": 0, "not_done": []}])
    'would remove 3 versions, 120 predictions; 5.4 MB of files; 21 versions stay; not done: no Airflow here'
    """
    gone = [f"{count} {kind}" for one in outcomes for kind, count in one["gone"].items()]
    verb = "would remove" if any(one["dry_run"] for one in outcomes) else "removed"
    size = sum(int(one["bytes"]) for one in outcomes)
    kept = sum(int(one["kept"]) for one in outcomes)
    parts = [f"{verb} {', '.join(gone)}" if gone else "nothing was old enough to go"]
    parts += [f"{size / 1e6:.1f} MB of files"] if size else []
    parts += [f"{kept} versions stay"] if kept else []
    missing = dict.fromkeys(reason for one in outcomes for reason in one["not_done"])
    return "; ".join(parts + ([f"not done: {'; '.join(missing)}"] if missing else []))


def check_files_are_there(ports: Ports, agent: str, version: str) -> None:
    """Raise FilesRemoved, which says when and why, for a version whose files retention took."""
    removal = ports.retention.removal(agent, version) if ports.retention is not None else None
    if removal is not None:
        raise FilesRemoved(f"{removal.told()}; `perennial models {agent}` lists the versions")


@dataclass(frozen=True, kw_only=True)
class _Pass:
    ports: Ports
    outcome: Outcome
    now: datetime
    actor: str

    @property
    def dry_run(self) -> bool:
        return self.outcome.dry_run

    def before(self, days: int) -> datetime:
        return self.now - timedelta(days=days)

    def store(self) -> RetentionStore | None:
        if self.ports.retention is None:
            self.outcome.not_done.append("this deployment keeps every version and row")
        return self.ports.retention


# versions


def sort_out(ports: Ports, store: RetentionStore, agent: str) -> tuple[dict[str, str], list[Left]]:
    """Version -> why its files stay, and the versions whose files may go, oldest first."""
    settings, left = ports.settings, store.left(agent)
    known = {one.version for one in left}
    champions = [
        move.version
        for move in ports.ledger.moves(agent, _ALIAS_MOVES)
        if move.alias is Alias.CHAMPION and move.version is not None and move.version in known
    ]
    in_play = dict(store.in_play(agent))
    back = ports.rollouts.previous_champion(agent)  # what a rollback without a name goes to
    if back is not None:
        in_play.setdefault(back, "a rollback goes to it")
    for name, target in ports.targets.items():
        serves = target.current(agent)  # also what a target serves that the agent's plan names no more
        if serves is not None:
            in_play.setdefault(serves, f"a {name} serves it")
    kept = kept_versions(
        [one.version for one in left], in_play=in_play, champions=champions,
        bases={one.version: one.base_version for one in left},
        keep_versions=settings.retention_keep_versions, keep_champions=settings.retention_keep_champions,
    )  # fmt: skip
    return kept, [one for one in reversed(left) if one.version not in kept]


def _versions(this: _Pass) -> None:
    store = this.store()
    if store is None:
        return
    for agent in this.ports.ledger.agents():
        kept, going = sort_out(this.ports, store, agent)
        this.outcome.kept.update({f"{agent} {version}": why for version, why in kept.items()})
        unfinished = [(one.version, one.digest) for one in store.unfinished(agent)]
        for version, digest in [*unfinished, *((one.version, one.digest) for one in going)]:
            try:
                gone = this.dry_run or _remove_version(this, store, agent, version, digest)
            except RolloutError as error:  # one version that somebody serves keeps no other from going
                logger.warning("%s %s stays: %s", agent, version, error)
                this.outcome.not_done.append(str(error))
                continue
            if gone:
                this.outcome.took("versions", f"{agent} {version}")
    if not this.dry_run:
        _erase(this)


def _remove_version(this: _Pass, store: RetentionStore, agent: str, version: str, digest: str) -> bool:
    """Mark, take the files away wherever they lie, and say that it is done. False when the version came into play meanwhile."""
    reason = f"keeps the newest {this.ports.settings.retention_keep_versions} versions and what is in use"
    if not store.begin_removal(agent, version, actor=this.actor, reason=reason):
        logger.info("%s %s is in use again and stays", agent, version)
        return False
    for target in this.ports.targets.values():
        target.remove(agent, version)  # first: what somebody serves from there keeps its other copies too
    this.ports.models.remove(agent, version, digest)
    cached = _cache(this.ports) / agent / f"{version}-{digest[:16]}"
    this.outcome.bytes += disk.size_of(cached)
    disk.remove(cached)
    store.end_removal(agent, version)
    this.ports.audit.append(
        actor=this.actor, action="files_removed", agent=agent, subject=version,
        detail={"digest": digest, "why": reason},
    )  # fmt: skip
    return True


def _erase(this: _Pass) -> None:
    left = this.ports.models.erase(this.ports.ledger.agents())
    if left:
        this.outcome.not_done.append(left)


def _refused(this: _Pass) -> None:
    before = this.before(this.ports.settings.retention_refused_days)
    agents = {agent.name for agent in this.ports.fleet().agents} | set(this.ports.ledger.agents())
    for agent in sorted(agents):
        for run_id in this.ports.models.old_runs(agent, before):
            if not this.dry_run:
                this.ports.models.forget_run(agent, run_id)
            this.outcome.took("runs of refused candidates", f"{agent} {run_id}")
    if not this.dry_run:
        _erase(this)


# files


def _bases(this: _Pass) -> None:
    store = this.store()
    if store is None:
        return
    named: set[str] = set()
    for agent in this.ports.ledger.agents():
        left = store.left(agent)
        # a dry run counts as if the versions had gone before
        going = {one.version for one in sort_out(this.ports, store, agent)[1]} if this.dry_run else set()
        named |= {digest for one in left if one.version not in going for digest in one.encoders}
    folder = this.ports.settings.home / "bases"
    before = this.before(this.ports.settings.retention_bases_days)
    _take(this, "encoders", disk.unnamed_bases(folder, named, before))


def _files(this: _Pass) -> None:
    settings, store = this.ports.settings, this.store()
    home, before = settings.home, this.before(settings.retention_workspace_days)
    serving = [path for path in (home / "serving").glob("*/versions") if path.is_dir()]
    cache = _cache(this.ports)
    half_made = [home / "bases", this.ports.work, cache, *(path for path in cache.glob("*") if path.is_dir()), *serving]
    _take(this, "half-made copies", disk.half_made(half_made, before))
    if store is not None:
        _take(this, "workspaces", disk.old_workspaces(this.ports.work, before, store.finished_jobs))
        _take(this, "cached bundles", disk.cached_bundles(cache, lambda agent: store.in_play(agent).keys(), before))
    logs = (home / "logs" / "tasks", home / "logs" / "dag-files")
    _take(this, "log files", disk.old_logs(logs, this.before(settings.retention_logs_days)))
    for folder in (*logs, home / "mlflow"):
        empty = disk.empty_folders(folder, before)
        this.outcome.took(
            "empty folders", count=len(empty) if this.dry_run else sum(disk.remove_empty(path) for path in empty)
        )


def _take(this: _Pass, kind: str, paths: Sequence[Path]) -> None:
    for path in paths:
        this.outcome.bytes += disk.size_of(path)
        if not this.dry_run:
            disk.remove(path)
        this.outcome.took(kind, path.relative_to(this.ports.settings.home).as_posix())


def _cache(ports: Ports) -> Path:
    return ports.settings.home / "cache" / "bundles"


# rows


def ages(ports: Ports) -> dict[Rows, int | None]:
    """How old rows of each kind may become, in days; None: for ever."""
    settings = ports.settings
    return {
        Rows.PREDICTIONS: settings.retention_predictions_days, Rows.OUTCOMES: settings.retention_predictions_days,
        Rows.RECENT_INPUTS: settings.retention_recent_inputs_days, Rows.GATEWAYS: settings.retention_gateways_days,
        Rows.OUTBOX: settings.retention_outbox_days, Rows.EMBEDDINGS: settings.retention_embeddings_days,
        Rows.SCANNED_TEXTS: settings.retention_scanned_texts_days, Rows.REDACTION_TASKS: settings.retention_redaction_tasks_days,
        Rows.REJECTED: settings.retention_rejected_days, Rows.LEFTOVERS: settings.retention_purge_days,
        Rows.TRAINED: settings.retention_trained_days,
    }  # fmt: skip


def _rows(this: _Pass) -> None:
    store = this.store()
    if store is None:
        return
    for rows, days in ages(this.ports).items():
        if days is None:
            continue
        before = this.before(days)
        try:
            count = store.count_old(rows, before) if this.dry_run else _remove_rows(store, rows, before)
        except NotConfigured as error:
            this.outcome.not_done.append(str(error))
            continue
        this.outcome.took(rows.value, count=count)


def _remove_rows(store: RetentionStore, rows: Rows, before: datetime) -> int:
    total = 0
    while gone := store.remove_old(rows, before, BATCH):
        total += gone
    return total


# Airflow


def _airflow(this: _Pass) -> None:
    runs = this.ports.runs
    if runs is None:
        this.outcome.not_done.append("there is no Airflow here whose runs could go")
        return
    try:
        old = runs.old(this.before(this.ports.settings.retention_airflow_days), MOST_RUNS)
        this.outcome.took("Airflow runs", count=len(old) if this.dry_run else runs.delete(old))
    except NotConfigured as error:
        this.outcome.not_done.append(str(error))
        return
    this.outcome.names += [f"{dag} {run}" for dag, run in old]


_PARTS: Mapping[Part, Callable[[_Pass], None]] = {
    Part.VERSIONS: _versions,
    Part.REFUSED: _refused,
    Part.BASES: _bases,
    Part.FILES: _files,
    Part.ROWS: _rows,
    Part.AIRFLOW: _airflow,
}
