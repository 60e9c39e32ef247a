"""An agent as its owner declares it: one frozen value of real objects, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from perennial.domain.model import Trainer
from perennial.domain.names import NAME, dag_problem
from perennial.domain.words import TaskKind, TooLittleTraffic
from perennial.fleet.budget import NO_LIMIT, Budget
from perennial.registry.permission import Rule
from perennial.rollout.freeze import Freeze
from perennial.selection.sent import TRUSTED


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One question that an agent answers.

    ``labels`` closed: a row with another label is quarantined. ``labels`` None: learnt from the data; a label that the
    champion does not know joins once ``new_label_rows`` rows carry it, which makes a major version.
    """

    name: str  # in requests and records
    kind: TaskKind = TaskKind.CLASSIFICATION  # a label, or SCORE: a number between 0 and 1
    labels: tuple[str, ...] | None = None  # the only ones; None: learnt from the data
    aliases: tuple[str, ...] = ()  # other names under which agents send this task
    new_label_rows: int = 12  # that a new label needs to join
    max_length: int = 20_000  # characters

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise ValueError(f"task name {self.name!r} must match {NAME.pattern}")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name}: labels repeat")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """How many rows one training takes, how much of the past it replays, and how much of it one sender may be.

    ``trusted_sources`` are patterns ``kind/source_id`` (docs/trust.md); everybody else is held to the shares, which are of the
    claimed rows of a task. ``young_days`` is how long a sender is new, and 0 for ``near_duplicates`` lets floods in.
    """

    batch: int = 500  # rows of one training at most
    replay: int = 200  # earlier rows that each task sees again
    holdout_share: float = 0.10  # of priority 0-1 rows that are not corrections
    holdout_max: int = 1000  # rows per task and evaluation
    trusted_sources: tuple[str, ...] = TRUSTED  # not held to a share
    source_share: float = 0.02  # of one untrusted source
    young_share: float = 0.02  # of all young sources together: no more than one of them
    young_days: float = 7.0  # so long a sender is new
    near_duplicates: int = 5  # of one text with one label
    self_labelled_share: float = 0.10  # labels that only repeat a model's own answer

    def __post_init__(self) -> None:
        for name in ("source_share", "young_share", "self_labelled_share"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"selection: {name} must be above 0 and at most 1; 1 switches the cap off")
        for pattern in self.trusted_sources:
            if "/" not in pattern:
                raise ValueError(
                    f"selection: {pattern!r} in trusted_sources must be kind/source_id, such as correction/editor"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Gates:
    """What a candidate must meet. Shares between 0 and 1."""

    rollback_threshold: float | None = None  # None: the deployment's setting (0.05)
    min_holdout: int = 100  # rows; with fewer a person decides
    min_accuracy: Mapping[str, float] = field(default_factory=dict)  # per task, absolute
    # per task and metric (macro_f1, macro_auc, precision:LABEL, ...; gates.metrics names them), absolute
    min_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    max_slice_drop: float = 0.03  # a slice may fall by this much at most; more, beyond doubt, holds
    slice_doubt: float = 0.20  # a drop of half that with a smaller p value (adjusted for all slices) asks a person
    slice_rows: int = 20  # a slice with fewer rows is said not to be measured
    stress_rows: int = 60  # holdout rows whose texts are disturbed in each of four ways; 0 switches that off
    k_folds: int = 5  # parts of the estimate that a person sees below min_holdout
    k_folds_always: bool = False  # also with enough holdout rows
    window_versions: int = 5  # no worse than the best of so many of the last versions
    performance_window: int | None = None  # newest rows that count as recent; None: the deployment's setting (100)
    corrections_learned: float = 1.0  # share of the batch's corrections that must be answered right
    two_person: bool = False  # who asked for a training cannot approve it; when a machine asked, two people must
    approvers: tuple[str, ...] = ()  # Airflow users whose approval counts; empty: whoever may answer its form

    def __post_init__(self) -> None:
        from perennial.gates.gate import GateSettings

        GateSettings.of(asdict(self), rollback_threshold=0.05)  # a ValueError here names the fleet file and its line


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """How a candidate meets traffic. Steps are shares of keys; seconds are wall time."""

    steps: tuple[float, ...] = (0.05, 0.25, 0.50, 1.0)  # the candidate's shares, one after the other
    min_samples: int = 20  # answers of the candidate per step before a verdict
    step_seconds: float = 5.0  # shortest time on a step
    max_hold_seconds: float = 600.0  # with too few samples after this, what ``on_too_little_traffic`` says
    # REVERT, ASK a person, or OFFLINE: gates and shadow decide
    on_too_little_traffic: TooLittleTraffic = TooLittleTraffic.REVERT
    max_error_rate: float = 0.02  # share of failed answers; more of them than the champion has, beyond doubt, revert
    max_latency_ratio: float = 3.0  # times the champion's median and 95th percentile; more reverts
    latency_slack_ms: float = (
        50.0  # a smaller difference is never worth a rollback: busy machines and caches make as much
    )
    max_agreement_drop: float = 0.05  # how much less often than the champion it may agree with outcomes
    max_slice_drop: float = 0.10  # the same for the rows of one label
    label_delay_seconds: float = 0.0  # how late outcomes come; younger answers are not judged on quality
    reports_revert: int = 5  # so many people who report the version within the window revert it; 0: never
    reports_window_seconds: float = 600.0  # the newest seconds in which their reports count
    bake_seconds: float = 3600.0  # so long after full traffic it is still watched, and reverted when it is worse
    shadow_requests: int = 50  # recorded requests that the candidate answers before any traffic
    targets: tuple[str, ...] = ("gateway", "folder")  # who is told what serves; "folder": the link that an agent reads


@dataclass(frozen=True, kw_only=True, slots=True)
class Breaker:
    """After ``refused`` candidates in a row (held or reverted) within the window, trainings by threshold pause; 0: never.

    Until a person resets it (``perennial rollout reset``), or the newest refusal is a window old.
    """

    refused: int = 5  # candidates in a row; 0: never
    window_seconds: float = 86_400.0  # within which all of them were refused


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """One agent of the fleet: the whole of what Perennial needs to keep it fresh."""

    name: str  # of its DAGs, models and requests; the file's name too
    owner: str  # shown in Airflow
    tasks: tuple[Task, ...]  # one model each
    trainer: Trainer  # how it learns
    description: str = ""  # shown in Airflow
    update_threshold: int | None = None  # rows that make it due; None: the deployment's setting (50)
    max_buffer_size: int | None = (
        None  # waiting rows, beyond it the least valuable leave; None: the deployment's setting (1000)
    )
    selection: Selection = Selection()  # what a training takes
    gates: Gates = Gates()  # what a candidate must meet
    rollout: Rollout = Rollout()  # how it meets traffic
    freeze: tuple[str, ...] = ()  # UTC, nothing is promoted meanwhile: "Fri 16:00/Mon 08:00", "2026-12-24/2026-12-27"
    breaker: Breaker = Breaker()  # when trainings by threshold pause
    budget: Budget = NO_LIMIT  # seconds of training that it may take
    redact_names: bool = True  # names of persons; direct identifiers always are
    pool: str = "gpu"  # Airflow's pool of its trainings
    queue: str = ""  # Celery queue of its trainings; empty: the deployment's (PERENNIAL_TRAIN_QUEUE)
    seed: int = 20250801  # of every choice by chance
    tags: tuple[str, ...] = ()  # of its DAGs

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise ValueError(f"agent name {self.name!r} must match {NAME.pattern}")
        if problem := dag_problem(self.name):
            raise ValueError(f"agent name {self.name!r} {problem}")
        if not self.tasks:
            raise ValueError(f"agent {self.name} declares no task")
        for window in self.freeze:
            Freeze.parse(window)  # ValueError says what is wrong
        names = [name for task in self.tasks for name in (task.name, *task.aliases)]
        if len(set(names)) != len(names):
            raise ValueError(f"agent {self.name}: two tasks share a name or alias")
        Rule(two_person=self.gates.two_person, approvers=self.gates.approvers)  # ValueError says what is wrong

    def task(self, name: str) -> Task:
        """The task of that name or alias; KeyError when there is none."""
        for task in self.tasks:
            if name == task.name or name in task.aliases:
                return task
        raise KeyError(name)

    def as_record(self) -> dict[str, Any]:
        """Plain JSON for the audit log and the agents table."""
        record = asdict(self)
        record["trainer"] = {"key": self.trainer.key, **record["trainer"]}
        return record
