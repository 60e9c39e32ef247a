"""Train a released version again from its signed manifest, and say whether the same bytes come out."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.model import BaseStore, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import RegistryError, TrainingError, UntrustedBundle
from perennial.flows.champion import bundle_folder, component
from perennial.flows.ports import Ports
from perennial.flows.provenance import code_digest, environment, machine
from perennial.ingest.results import KnownRow
from perennial.registry.bundle import TASKS, content_digest
from perennial.registry.files import digest_of_file, listing
from perennial.registry.manifest import Manifest
from perennial.registry.recipe import Recipe, Role, RowMark, TaskRecipe, row_digest
from perennial.trainers.bases import LocalBaseStore, folder_digest
from perennial.trainers.catalogue import trainer_for

logger = logging.getLogger(__name__)

_NAMED = 10  # ids that a reason names before it counts the rest


class Outcome(StrEnum):
    """What a reproduction ends with."""

    EQUAL = "equal"
    DIFFERENT = "different"
    IMPOSSIBLE = "impossible"


EXIT_CODES = {Outcome.EQUAL: 0, Outcome.DIFFERENT: 1, Outcome.IMPOSSIBLE: 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskOutcome:
    """One task of the version. ``equal`` is None when it was not made again; ``differences`` names files, never contents."""

    task: str
    how: str  # trained, or the version whose files it keeps
    equal: bool | None
    new: int = 0
    replay: int = 0
    seconds: float = 0.0
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """The answer. ``recorded`` and ``found`` are content digests (sha256, hex); ``reasons`` say why they differ, or what is missing."""

    agent: str
    version: str
    outcome: Outcome
    recorded: str = ""
    found: str | None = None
    tasks: tuple[TaskOutcome, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 equal, 1 different, 2 cannot be reproduced.

        >>> Reproduction(agent="scout", version="1.0.0", outcome=Outcome.IMPOSSIBLE).exit_code
        2
        """
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "outcome": self.outcome.value}


def reproduce(ports: Ports, agent: str, version: str) -> Reproduction:
    """Train every task of a version again, from the rows that its signed bundle names, and compare the content digests.

    Texts are encoded anew: the embedding cache is asked only afterwards, to explain a difference. Nothing of the
    deployment changes; encoders that a batch training makes go to a temporary folder. Runs on the command line, in seconds
    for an online version. Errors of the registry and the trainers are outcomes here; StoreUnavailable is raised.
    """
    began = time.monotonic()
    try:
        folder = _bundle(ports, agent, version)
        manifest = Manifest.read(folder)
        answer = _from_manifest(ports, manifest, folder)
    except (RegistryError, UntrustedBundle, TrainingError) as error:
        answer = _impossible(agent, version, (str(error),))
    return replace(answer, seconds=round(time.monotonic() - began, 3))


def _bundle(ports: Ports, agent: str, version: str) -> Path:
    if ports.ledger.version(agent, version) is None:
        raise RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")
    return bundle_folder(ports, agent, version)


def _impossible(agent: str, version: str, reasons: Iterable[str], recorded: str = "") -> Reproduction:
    return Reproduction(
        agent=agent, version=version, outcome=Outcome.IMPOSSIBLE, reasons=tuple(reasons), recorded=recorded
    )


def _from_manifest(ports: Ports, manifest: Manifest, folder: Path) -> Reproduction:
    if not manifest.recipe:
        where = f"of {manifest.origin['sender']}" if manifest.origin else ""
        if where:
            why = f"it was imported ({where}, version {manifest.origin['version']}): reproduce it there, where its rows are"
            return _impossible(manifest.agent, manifest.version, (why,), manifest.content_digest)
        why = "it was released before manifests kept the order of the rows and their digests; train and release it anew"
        return _impossible(manifest.agent, manifest.version, (why,), manifest.content_digest)
    recipe = Recipe.from_dict(manifest.recipe)
    checks = {task: _check(ports, manifest, task) for task in recipe.tasks}
    gone = [reason for task, check in checks.items() for reason in check.gone(task)]
    if gone:
        return _impossible(manifest.agent, manifest.version, gone, manifest.content_digest)
    with tempfile.TemporaryDirectory(prefix="perennial-reproduce-") as room:
        return _compare(ports, manifest, recipe, checks, folder, Path(room))


# --- rows -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RowCheck:
    """The rows of one task as they are now, beside what the first training saw. ``purged``, ``missing``, ``changed``: ids."""

    new: tuple[TrainingRow, ...]
    replay: tuple[TrainingRow, ...]
    purged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def gone(self, task: str) -> list[str]:
        """What keeps the task from being trained again."""
        return [
            f"{task}: {_rows(len(ids))} {what}: {_few(ids)}"
            for ids, what in ((self.purged, "purged"), (self.missing, "not in the buffer any more"))
            if ids
        ]


def check_rows(marks: Mapping[Role, Sequence[RowMark]], known: Mapping[UUID, KnownRow]) -> RowCheck:
    """Rows in training order, with the flags of then; what is gone or has another text or label now is named.

    >>> check_rows({Role.NEW: [RowMark(example_id=str(UUID(int=7)), digest="a")]}, {}).missing
    ('00000000-0000-0000-0000-000000000007',)
    """
    found: dict[Role, list[TrainingRow]] = {Role.NEW: [], Role.REPLAY: []}
    purged, missing, changed = [], [], []
    for role, rows in found.items():
        for mark in marks.get(role, ()):
            here = known.get(UUID(mark.example_id))
            if here is None:
                missing.append(mark.example_id)
            elif here.row is None:
                purged.append(mark.example_id)
            else:
                if row_digest(here.row) != mark.digest:
                    changed.append(mark.example_id)
                rows.append(replace(here.row, priority=mark.priority, correction=mark.correction))
    return RowCheck(
        new=tuple(found[Role.NEW]), replay=tuple(found[Role.REPLAY]), purged=tuple(purged), missing=tuple(missing),
        changed=tuple(changed),
    )  # fmt: skip


def _check(ports: Ports, manifest: Manifest, task: str) -> RowCheck:
    marks = manifest.rows[task]
    ids = [UUID(mark.example_id) for role in (Role.NEW, Role.REPLAY) for mark in marks.get(role, ())]
    return check_rows(marks, ports.buffer.rows_by_id(ids))


# --- training -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _BasesAside:
    """Reads encoders of the deployment and keeps new ones in a temporary folder (a ``BaseStore``)."""

    there: BaseStore
    aside: LocalBaseStore

    def put(self, folder: Path) -> str:
        digest = folder_digest(folder)
        try:
            self.there.path(digest)
        except UntrustedBundle:
            return self.aside.put(folder)
        return digest

    def path(self, digest: str) -> Path:
        own = self.aside.folder / digest
        return self.aside.path(digest) if own.is_dir() else self.there.path(digest)


def _compare(
    ports: Ports, manifest: Manifest, recipe: Recipe, checks: Mapping[str, RowCheck], folder: Path, room: Path
) -> Reproduction:
    made = room / "made"
    (made / TASKS).mkdir(parents=True)
    bases = _BasesAside(there=ports.bases, aside=LocalBaseStore(folder=room / "bases"))
    bench = replace(ports.bench, bases=bases, embeddings=None)
    tasks: list[TaskOutcome] = []
    reasons: list[str] = []
    for task, version in sorted(recipe.carried.items()):
        _copy_carried(ports, manifest.agent, version, task, made / TASKS / task)
        tasks.append(_outcome(folder, made, TaskOutcome(task=task, how=f"kept from {version}", equal=None)))
    for task, wanted in sorted(recipe.tasks.items()):
        check = checks[task]
        outcome = TaskOutcome(
            task=task, how="trained", equal=None, new=len(check.new), replay=len(check.replay)
        )  # fmt: skip
        if check.changed:
            ids = _few(check.changed)
            reasons.append(
                f"{task}: {_rows(len(check.changed))} changed since (text or label), so it was not trained again: {ids}"
            )
            tasks.append(outcome)
            continue
        began = time.monotonic()
        _train(ports, manifest, task, wanted, check, made / TASKS / task, bench)
        outcome = _outcome(folder, made, replace(outcome, seconds=round(time.monotonic() - began, 3)))
        tasks.append(outcome)
        if not outcome.equal:
            cached = replace(bench, embeddings=ports.embeddings)
            again = room / f"cached-{task}"
            again.parent.mkdir(exist_ok=True)
            _train(ports, manifest, task, wanted, check, again, cached)
            reasons += _why(manifest, task, wanted, cached_equal=not _differences(folder / TASKS / task, again))
    whole = all(outcome.equal is not None for outcome in tasks)
    found = content_digest(made) if whole else None
    equal = found == manifest.content_digest
    if not equal and not reasons:
        reasons = [
            f"{outcome.task}: the files kept from an earlier version differ" for outcome in tasks if not outcome.equal
        ]
    return Reproduction(
        agent=manifest.agent, version=manifest.version, outcome=Outcome.EQUAL if equal else Outcome.DIFFERENT,
        recorded=manifest.content_digest, found=found, tasks=tuple(sorted(tasks, key=lambda outcome: outcome.task)),
        reasons=tuple(dict.fromkeys(reasons)), notes=tuple(_notes(manifest)) if equal else (),
    )  # fmt: skip


def _train(
    ports: Ports, manifest: Manifest, task: str, wanted: TaskRecipe, check: RowCheck, out: Path, bench: Workbench
) -> None:
    from perennial.trainers._threads import torch_threads

    made_by = manifest.trainers[task]
    trainer = trainer_for(made_by["key"], made_by["settings"])
    start = None
    if wanted.base is not None:
        start = component(_bundle(ports, manifest.agent, wanted.base), task)
    batch = TaskBatch(
        agent=manifest.agent, task=task, kind=TaskKind(wanted.kind), labels=wanted.labels, new=check.new,
        replay=check.replay, mode=Mode(manifest.mode),
    )  # fmt: skip
    out.mkdir()
    with torch_threads(wanted.threads):
        trainer.fit(batch, start, out, seed=wanted.seed, bench=bench)


def _copy_carried(ports: Ports, agent: str, version: str, task: str, out: Path) -> None:
    kept = component(_bundle(ports, agent, version), task)
    if kept is None:
        raise RegistryError(f"{agent} {version} has no task {task}, of which files were kept; fetch the version again")
    shutil.copytree(kept, out)


# --- what differs, and why ------------------------------------------------------------------------------------------------------


def _outcome(folder: Path, made: Path, outcome: TaskOutcome) -> TaskOutcome:
    differences = _differences(folder / TASKS / outcome.task, made / TASKS / outcome.task)
    return replace(outcome, equal=not differences, differences=differences)


def _differences(first: Path, again: Path) -> tuple[str, ...]:
    """The files of a component that differ, with the fields of JSON and the largest distance of weights."""
    if not first.is_dir():
        return ("the bundle has no such task",)
    there, here = set(listing(first)), set(listing(again))
    found = [f"{name} is in one of the two only" for name in sorted(there ^ here)]
    for name in sorted(there & here):
        if digest_of_file(first / name) != digest_of_file(again / name):
            found.append(f"{name}: {_difference(first / name, again / name)}")
    return tuple(found)


def _difference(first: Path, again: Path) -> str:
    if first.suffix == ".json":
        one, two = (json.loads(path.read_text(encoding="utf-8")) for path in (first, again))
        return ", ".join(differing(one, two)) or "written differently"
    return _distance(first, again)


def differing(one: Any, two: Any, path: str = "") -> list[str]:
    """Dotted names of the fields in which two JSON values differ; never the values.

    >>> differing({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9, "c": 2}})
    ['a.b', 'd']
    """
    if isinstance(one, dict) and isinstance(two, dict):
        names = sorted(one.keys() | two.keys())
        return [
            found
            for name in names
            for found in differing(one.get(name), two.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if one == two else [path]


def _distance(first: Path, again: Path) -> str:
    import numpy as np
    from safetensors.numpy import load_file

    one, two = load_file(first), load_file(again)
    if {name: value.shape for name, value in one.items()} != {name: value.shape for name, value in two.items()}:
        return "tensors of other names or shapes"
    largest = max(
        (float(np.abs(one[name].astype(np.float64) - two[name]).max(initial=0.0)) for name in one), default=0.0
    )
    return f"weights differ by {largest:.3g} at most"


def _why(manifest: Manifest, task: str, wanted: TaskRecipe, *, cached_equal: bool) -> list[str]:
    """What is not as it was when the task was trained, most telling first."""
    found = []
    if cached_equal:
        found.append(
            f"{task}: with the embeddings that the deployment keeps the weights are equal, with texts encoded anew they are not: "
            "another machine or number of threads encoded them, or the kept embeddings were changed"
        )
    found += [
        f"{task}: other machine: {name} was {was}, is {now}"
        for name, was, now in other_machine(wanted.machine, machine())
    ]
    if wanted.device not in {"", "cpu"}:
        found.append(f"{task}: it was trained on {wanted.device}, where sums are not made in one order")
    found += _libraries(manifest)
    if manifest.code_digest != code_digest():
        found.append(f"other code: digest {manifest.code_digest[:12]} then, {code_digest()[:12]} now")
    return found or [
        f"{task}: rows, settings, code, libraries and machine are those of then, and yet the weights differ"
    ]


def other_machine(was: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Name, former and present value of what is not the same.

    >>> other_machine({"processor": "A", "python": "3.11.9"}, {"processor": "B", "python": "3.11.9"})
    [('processor', 'A', 'B')]
    """
    return [(name, value, now.get(name, "unknown")) for name, value in sorted(was.items()) if now.get(name) != value]


def _libraries(manifest: Manifest) -> list[str]:
    return [
        f"other library: {name} was {was or 'not named'}, is {now or 'not named'}"
        for name, was, now in other_machine(manifest.environment, environment())
    ]


def _notes(manifest: Manifest) -> list[str]:
    """What changed since and did not matter."""
    notes = []
    if manifest.code_digest != code_digest():
        notes.append("the code of Perennial is another one than then; the weights are the same")
    return notes + [f"{line}; the weights are the same" for line in _libraries(manifest)]


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"


def _few(ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + rest
