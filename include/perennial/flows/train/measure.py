"""What an evaluation asks the models of one task, and the record of their answers: ids and numbers, no texts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.model import Prediction, Predictor, TaskBatch, Trainer, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import PerennialError
from perennial.gates.folds import folds
from perennial.gates.gate import GateSettings
from perennial.gates.metrics import measure
from perennial.gates.scores import row_score
from perennial.gates.stress import KINDS, disturbed, sample
from perennial.trainers.catalogue import load_component, same_method
from perennial.trainers.tfidf_baseline import majority_baseline, tfidf_baseline


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One task's candidate with everything that it is asked. ``best``: the best recent version other than the champion.

    ``room`` is where models are made that live for the evaluation alone; None: the machine's own place for such files.
    """

    trainer: Trainer
    bench: Workbench
    settings: GateSettings
    agent: str
    task: str
    kind: TaskKind
    labels: tuple[str, ...]
    candidate: Path
    champion: Path | None
    holdout: tuple[TrainingRow, ...]
    batch: tuple[TrainingRow, ...]
    replay: tuple[TrainingRow, ...] = ()
    regression: tuple[TrainingRow, ...] = ()
    job_id: UUID | None = None
    seed: int = 0
    best: Path | None = None
    best_version: str | None = None
    versions: int = 1
    best_problem: str = ""
    room: Path | None = None


def examine(exam: Exam) -> dict[str, Any]:
    """Ask both models about holdout, corrections, earlier corrections and disturbed texts; runs in an evaluation task.

    Senders are named by the first digits of a digest, so the record names nobody. Raises UntrustedBundle when a model's
    files do not hold together.
    """
    candidate = exam.trainer.load(exam.candidate, exam.bench)
    champion = _loaded(exam, exam.champion) if exam.champion is not None else None
    corrections = tuple(row for row in exam.batch if row.correction)
    given = {"candidate": _predict(candidate, exam.holdout)}
    if champion is not None:
        given["champion"] = _predict(champion, exam.holdout)
    columns = {who: _scores(said, exam.holdout, exam.kind) for who, said in given.items()}
    record: dict[str, Any] = {
        "kind": exam.kind.value,
        "ids": _ids(exam.holdout),
        "labels": [None if exam.kind is TaskKind.SCORE else str(row.label) for row in exam.holdout],
        "times": [row.created_at.isoformat() if row.created_at else None for row in exam.holdout],
        "sources": [pseudonym(row.source_id) for row in exam.holdout],
        "earlier": [row.job_id is not None and row.job_id != exam.job_id for row in exam.holdout],
        "batch_labels": [] if exam.kind is TaskKind.SCORE else sorted({str(row.label) for row in exam.batch}),
        "candidate": columns["candidate"],
        "champion": columns.get("champion"),
        "corrections": {"ids": _ids(corrections), "candidate": answers(candidate, corrections, exam.kind)},
        "regression": _both(candidate, champion, exam.regression, exam.kind),
        "stress": _stress(exam, candidate, champion),
        "metrics": {who: _metrics(exam, said) for who, said in given.items()} | _commonest(exam),
        "baselines": None if champion else _baselines(exam.batch, exam.holdout, exam.kind),
        "k_fold": _k_fold(exam),
        "reference": _reference(exam),
    }  # fmt: skip
    record["summary"] = {
        "rows": len(exam.holdout), "champion": _mean(record["champion"]), "candidate": _mean(record["candidate"]),
        "corrections": len(corrections),
    }  # fmt: skip
    return record


def _loaded(exam: Exam, path: Path) -> Predictor:
    """An earlier version's component, which another trainer may have made: then by its own record."""
    return exam.trainer.load(path, exam.bench) if same_method(path, exam.trainer) else load_component(path, exam.bench)


def pseudonym(source_id: str) -> str:
    """A sender as reports name it: always the same, and nobody's name.

    >>> pseudonym("editor@example.com"), pseudonym("")
    ('bc15ce5d', 'unnamed')
    """
    return hashlib.sha256(source_id.encode()).hexdigest()[:8] if source_id else "unnamed"


def answers(predictor: Predictor, rows: Sequence[TrainingRow], kind: TaskKind) -> list[float]:
    """How right a model is on each row: 1 or 0 for a label, 1 - |error| for a score."""
    return _scores(_predict(predictor, rows), rows, kind)


def _predict(predictor: Predictor, rows: Sequence[TrainingRow]) -> list[Prediction]:
    return predictor.predict([row.text for row in rows]) if rows else []


def _scores(said: Sequence[Prediction], rows: Sequence[TrainingRow], kind: TaskKind) -> list[float]:
    return [row_score(kind, one.output, row.label) for one, row in zip(said, rows, strict=True)]


def _ids(rows: Sequence[TrainingRow]) -> list[str]:
    return [str(row.example_id) for row in rows]


def _both(
    candidate: Predictor, champion: Predictor | None, rows: Sequence[TrainingRow], kind: TaskKind
) -> dict[str, Any]:
    return {
        "ids": _ids(rows), "candidate": answers(candidate, rows, kind),
        "champion": answers(champion, rows, kind) if champion else None,
    }  # fmt: skip


def _stress(exam: Exam, candidate: Predictor, champion: Predictor | None) -> dict[str, Any]:
    rows = sample(exam.holdout, exam.settings.stress_rows)
    found = {}
    for name in KINDS if rows else ():
        texts = [disturbed(name, row) for row in rows]
        found[name] = {
            "ids": _ids(rows), "candidate": _scores(candidate.predict(texts), rows, exam.kind),
            "champion": _scores(champion.predict(texts), rows, exam.kind) if champion else None,
        }  # fmt: skip
    return found


def _metrics(exam: Exam, said: Sequence[Prediction]) -> dict[str, float | None]:
    scores = [one.scores for one in said]
    outputs = [one.output for one in said]
    return measure(exam.kind, [row.label for row in exam.holdout], outputs, scores if all(scores) else ())


def _commonest(exam: Exam) -> dict[str, dict[str, float | None]]:
    """The baseline of the metrics: always the commonest label of the holdout; for numbers their mean."""
    labels = [row.label for row in exam.holdout]
    if not labels:
        return {}
    if exam.kind is TaskKind.SCORE:
        level: Any = sum(float(label) for label in labels) / len(labels)
    else:
        names = [str(label) for label in labels]
        level = min(set(names), key=lambda name: (-names.count(name), name))
    return {"baseline": measure(exam.kind, labels, [level] * len(labels))}


def _baselines(batch: Sequence[TrainingRow], holdout: Sequence[TrainingRow], kind: TaskKind) -> dict[str, float] | None:
    """What a first version must beat, on the scale of the score tables; None when there is nothing to measure on."""
    if not batch or not holdout:
        return None
    found = {"majority": majority_baseline(batch, holdout, kind), "tfidf": tfidf_baseline(batch, holdout, kind)}
    # a score task's baseline is an absolute error; the tables hold 1 - |error|
    return {name: 1.0 - value for name, value in found.items()} if kind is TaskKind.SCORE else found


def _k_fold(exam: Exam) -> dict[str, Any] | None:
    """Train k times on batch and holdout but for one part, and ask about that part; None when nobody wants to know.

    Every training starts from the champion and is an online one (for ``ewc_text`` a head on cached embeddings), so the
    estimate costs seconds, whatever the mode of the candidate. It never touches the candidate.
    """
    if len(exam.holdout) >= exam.settings.min_holdout and not exam.settings.k_folds_always:
        return None
    known = exam.kind is TaskKind.SCORE
    rows = tuple(row for row in (*exam.batch, *exam.holdout) if known or row.label in exam.labels)
    k = exam.settings.k_folds
    if len(rows) < 2 * k:
        return {"folds": [], "rows": len(rows), "problem": f"{len(rows)} rows are too few for {k} folds"}
    values = []
    for part in folds(rows, k):
        left_out = {row.example_id for row in part}
        batch = TaskBatch(
            agent=exam.agent, task=exam.task, kind=exam.kind, labels=exam.labels,
            new=tuple(row for row in rows if row.example_id not in left_out), replay=exam.replay, mode=Mode.ONLINE,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix=".perennial-fold-", dir=exam.room) as scratch:
            try:
                exam.trainer.fit(batch, exam.champion, Path(scratch), seed=exam.seed, bench=exam.bench)
            except PerennialError as error:
                return {
                    "folds": [],
                    "rows": len(rows),
                    "problem": f"a fold could not be trained: {type(error).__name__}",
                }
            values.append(_mean(answers(exam.trainer.load(Path(scratch), exam.bench), part, exam.kind)))
    return {"folds": values, "rows": len(rows), "problem": ""}


def _reference(exam: Exam) -> dict[str, Any]:
    record: dict[str, Any] = {"version": exam.best_version, "scores": None, "looked_at": exam.versions}
    if exam.best_problem:
        return {**record, "problem": exam.best_problem}
    if exam.best is not None:
        try:
            best = _loaded(exam, exam.best)
        except PerennialError as error:
            return {**record, "problem": f"version {exam.best_version} could not be loaded ({type(error).__name__})"}
        record["scores"] = answers(best, exam.holdout, exam.kind)
    return record


def _mean(values: Sequence[float] | None) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def flat_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The candidate's metrics and its k-fold estimate under plain names, for MLflow and the manifest.

    Those of single labels stay in the gate report: a label's name may hold characters that MLflow refuses.

    >>> flat_metrics({"metrics": {"candidate": {"macro_f1": 0.8, "recall:a": None}}, "k_fold": {"folds": [0.7, 0.9]}})
    {'macro_f1': 0.8, 'k_fold_mean': 0.8, 'k_fold_sd': 0.141421}
    """
    from perennial.gates.scores import KFold

    given = record.get("metrics", {}).get("candidate", {})
    found = {name: round(float(value), 6) for name, value in given.items() if value is not None and ":" not in name}
    estimate = KFold.from_record(record.get("k_fold"))
    if estimate is not None and estimate.measured:
        found |= {"k_fold_mean": round(estimate.mean, 6), "k_fold_sd": round(estimate.sd, 6)}
    return found
