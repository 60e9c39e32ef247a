"""What must hold of a deployment's books after a process was killed: pure, from rows to violations.

``benchmarks/bench_faults.py`` asks it after every kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

OPEN_JOB = frozenset({"validating", "training", "evaluating"})
OPEN_ROLLOUT = frozenset({"pending", "shadow", "canary"})
# what must say why; an unlabelled example waits for its label, as its state says
ASIDE = frozenset({"held", "quarantined", "evicted", "superseded"})
CONTROLLER = "perennial"
REVERSALS = frozenset({"reverted", "bake_reverted", "rollout_aborted", "bundle_refused"})
Row = Mapping[str, Any]


class Harm(StrEnum):
    """What a kill must not do."""

    LOST = "lost"
    TWICE = "twice"
    HALF = "half visible"


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One broken promise: its name, and which row broke it."""

    harm: Harm
    name: str
    subject: str


@dataclass(frozen=True, kw_only=True)
class Books:
    """One agent's rows at a moment when nothing trains and nothing rolls out.

    ``store`` is what the model store has (version, digest), ``taught`` which version learned from which example, ``history`` the
    performance rows, ``moves`` those of the alias champion, ``gateway`` the champion that is really loaded, ``genuine`` why its
    bundle does not verify (empty: it does), ``workspaces`` the jobs whose texts lie on disk.
    """

    acknowledged: Collection[str] = ()
    examples: Sequence[Row] = ()
    jobs: Sequence[Row] = ()
    versions: Sequence[Row] = ()
    taught: Sequence[tuple[str, str]] = ()
    store: Sequence[tuple[str, str]] = ()
    rollouts: Sequence[Row] = ()
    history: Sequence[Row] = ()
    audit: Sequence[Row] = ()
    moves: Sequence[Row] = ()
    champion: str | None = None
    candidate: str | None = None
    gateway: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    genuine: str = ""
    workspaces: Collection[str] = ()
    failed_requests: int = 0


def violations(books: Books) -> list[Violation]:
    """Every broken promise, by name.

    >>> [one.name for one in violations(Books(acknowledged=["e1"]))]
    ['an acknowledged example is gone', 'nothing serves']
    """
    found = [*_examples(books), *_releases(books), *_serving(books), *_records(books)]
    return [Violation(harm=harm, name=name, subject=str(subject)) for harm, name, subject in found]


_Found = Iterator[tuple[Harm, str, Any]]


def _examples(books: Books) -> _Found:
    known = {row["example_id"]: row for row in books.examples}
    for identity in sorted(set(books.acknowledged) - known.keys()):
        yield Harm.LOST, "an acknowledged example is gone", identity
    running = {job["job_id"] for job in books.jobs if job["status"] in OPEN_JOB}
    of_job = {job["job_id"]: job["version"] for job in books.jobs}
    taught = set(books.taught)
    for identity, row in known.items():
        state, version = row["state"], row["model_version"]
        if state == "claimed" and row["job_id"] not in running:
            yield Harm.LOST, "an example stays claimed by a job that ended", identity
        if state == "trained" and (version, identity) not in taught:
            yield Harm.LOST, "an example is called trained and its version did not learn from it", identity
        if state == "trained" and of_job.get(row["job_id"]) != version:
            yield Harm.LOST, "an example names another version than its job", identity
        if state in ASIDE and not row["reason"] and row["superseded_by"] is None:
            yield Harm.LOST, "an example stands aside without a reason", identity
    for identity, count in Counter(identity for _, identity in taught).items():
        if count > 1:
            yield Harm.TWICE, "an example was trained into two versions", identity


def _releases(books: Books) -> _Found:
    for job_id in sorted(set(books.workspaces) - {job["job_id"] for job in books.jobs if job["status"] in OPEN_JOB}):
        yield Harm.HALF, "the texts of a job that ended are left on disk", job_id
    yield from _repeated("a job has two versions", (row["job_id"] for row in books.versions))
    yield from _repeated("a version has two jobs", (job["version"] for job in books.jobs if job["version"]))
    yield from _repeated("a version lies in the model store twice", (version for version, _ in books.store))
    ledger = {row["version"]: row for row in books.versions}
    jobs = {job["job_id"]: job for job in books.jobs}
    stored = dict(books.store)
    for version, row in ledger.items():
        if stored.get(version) != row["digest"]:
            yield Harm.HALF, "a version of the ledger has no such bundle in the model store", version
        job = jobs.get(row["job_id"])
        if job is not None and (job["version"], job["status"]) != (version, "completed"):
            yield Harm.HALF, "a version was released and its job did not end well", version
    for version in sorted(stored.keys() - ledger.keys()):
        yield Harm.HALF, "the model store shows a version that the ledger does not know", version
    for job in books.jobs:
        if job["status"] in OPEN_JOB:
            yield Harm.HALF, "a job is still open", job["job_id"]
        if job["version"] and job["version"] not in ledger:
            yield Harm.HALF, "a job names a version that was never released", job["job_id"]


def _serving(books: Books) -> _Found:
    if books.champion is None or books.champion not in {row["version"] for row in books.versions}:
        yield Harm.HALF, "nothing serves", books.champion
        return
    if books.gateway != books.champion:
        yield Harm.HALF, "the gateway serves another version than the ledger says", books.gateway
    if books.candidate is not None:
        yield Harm.HALF, "a candidate is left in traffic", books.candidate
    for row in books.rollouts:
        if row["state"] in OPEN_ROLLOUT:
            yield Harm.HALF, "a rollout is still open", row["version"]
    if dict(books.aliases) != {"champion": books.champion}:
        yield Harm.HALF, "the model store's aliases are not the ledger's", sorted(books.aliases.items())
    if books.genuine:
        yield Harm.HALF, "the champion's bundle does not verify", books.genuine
    if books.failed_requests:
        yield Harm.HALF, "requests failed", books.failed_requests


def _records(books: Books) -> _Found:
    """One entry per decision, and one line of history per job."""
    yield from _repeated(
        "a job stands in the history twice",
        ((row["job_id"], row["rollback"]) for row in books.history if row["job_id"] is not None),
    )
    by_rollout: dict[str, Counter[Any]] = {"promoted": Counter(), "reverted": Counter()}
    registered: Counter[str] = Counter()
    for row in books.audit:
        if row["action"] == "registered":
            registered[row["subject"]] += 1
        for word, actions in (("promoted", {"promoted"}), ("reverted", REVERSALS)):
            if row["action"] in actions:
                by_rollout[word][row["detail"].get("rollout")] += 1
    yield from _once("registered", {row["version"] for row in books.versions}, registered)
    yield from _once("promoted", {row["id"] for row in books.rollouts if row["full_at"]}, by_rollout["promoted"])
    gone = {row["id"] for row in books.rollouts if row["state"] == "reverted"}
    yield from _once("reverted", gone, by_rollout["reverted"])
    claims = [row["subject"] for row in books.audit if row["action"] == "critical_correction_claimed"]
    yield from _repeated("a claim is in the audit twice", claims)
    orders = [tuple(row["detail"].get("rollouts", ())) for row in books.audit if row["action"] == "rollback"]
    yield from _repeated("a rollback is in the audit twice", [order for order in orders if order])
    told = {
        (row["actor"], row["subject"], row["detail"].get("why")) for row in books.audit if row["action"] == "rollback"
    }
    for move in books.moves:
        if move["actor"] != CONTROLLER and (move["actor"], move["version"], move["reason"]) not in told:
            yield Harm.LOST, "the audit does not say who rolled back", move["version"]


def _once(word: str, wanted: Collection[Any], seen: Mapping[Any, int]) -> _Found:
    for one in sorted(wanted, key=str):
        if not seen.get(one):
            yield Harm.LOST, f"the audit does not say: {word}", one
        elif seen[one] > 1:
            yield Harm.TWICE, f"the audit says twice: {word}", one


def _repeated(name: str, values: Any) -> _Found:
    for value, count in Counter(values).items():
        if count > 1:
            yield Harm.TWICE, name, value
