"""What every trainer asks of a batch and of its output folder; imports no library."""

from __future__ import annotations

from pathlib import Path

from perennial.domain.model import TaskBatch
from perennial.domain.words import TaskKind
from perennial.errors import EmptyBatch, TrainingError, UnknownLabel


def check_batch(batch: TaskBatch) -> None:
    """EmptyBatch without new rows; UnknownLabel for a label that the batch does not permit, or a score outside [0,
    1].
    """
    if not batch.new:
        raise EmptyBatch(f"{batch.agent}.{batch.task} has no new row; wait for examples or lower the threshold")
    if batch.kind is TaskKind.CLASSIFICATION:
        if not batch.labels:
            raise TrainingError(
                f"{batch.agent}.{batch.task} has no label to learn; let more rows of a label come together"
            )
        _check_labels(batch)
    else:
        _check_scores(batch)


def _check_labels(batch: TaskBatch) -> None:
    known = set(batch.labels)
    for row in (*batch.new, *batch.replay):
        if not isinstance(row.label, str) or row.label not in known:
            raise UnknownLabel(
                f"row {row.example_id} of {batch.agent}.{batch.task} has the label {str(row.label)[:40]!r}, which is not among the "
                f"{len(known)} labels of this batch; set the row aside, or admit the label and train again"
            )


def _check_scores(batch: TaskBatch) -> None:
    for row in (*batch.new, *batch.replay):
        if isinstance(row.label, bool) or not isinstance(row.label, int | float) or not 0.0 <= row.label <= 1.0:
            raise UnknownLabel(
                f"row {row.example_id} of {batch.agent}.{batch.task} has no score between 0 and 1; quarantine the row and train again"
            )


def check_empty(out: Path) -> None:
    """A TrainingError unless ``out`` is an empty folder: files of an earlier attempt must not slip into a bundle."""
    if not out.is_dir() or any(out.iterdir()):
        raise TrainingError(f"the output folder {out.name[:64]!r} is missing or not empty; give each attempt a new one")
