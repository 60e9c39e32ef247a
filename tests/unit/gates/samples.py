"""Score tables for the gate tests: whole, and with a stated number of gains and losses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from perennial.domain.words import TaskKind
from perennial.gates.scores import Evaluation, Reference, RowScores, TaskScores, label_slices


def table(
    rows: int, *, both: int, gains: int = 0, losses: int = 0, labels: tuple[str, ...] = ("a", "b"), task: str = "news"
) -> TaskScores:
    """``both`` rows that both answer right, then ``gains`` (candidate only), ``losses`` (champion only), rest wrong."""
    rest = rows - both - gains - losses
    names = tuple(labels[index % len(labels)] for index in range(rows))
    return TaskScores(
        task=task, kind=TaskKind.CLASSIFICATION, ids=tuple(f"{task}-{index}" for index in range(rows)), labels=names,
        candidate=(*[1.0] * (both + gains), *[0.0] * (losses + rest)),
        champion=(*[1.0] * both, *[0.0] * gains, *[1.0] * losses, *[0.0] * rest), slices=label_slices(names),
    )  # fmt: skip


def simulated(
    draw: Random, rows: int, *, right: float, disagree: float, labels: tuple[str, ...], task: str
) -> TaskScores:
    """Two equally good models: each row is right with the same chance in both, and they differ on a share of the rows.

    ``disagree`` None-like 1.0 means fully independent answers.
    """
    names = tuple(draw.choice(labels) for _ in range(rows))
    champion = tuple(float(draw.random() < right) for _ in names)
    candidate = tuple(float(draw.random() < right) if draw.random() < disagree else value for value in champion)
    return TaskScores(
        task=task, kind=TaskKind.CLASSIFICATION, ids=tuple(str(index) for index in range(rows)), labels=names,
        candidate=candidate, champion=champion, slices=label_slices(names),
    )  # fmt: skip


def numbers(rows: int, champion: float, candidate: float, *, task: str = "quality") -> TaskScores:
    """A score task in which every row scores the same."""
    return TaskScores(
        task=task, kind=TaskKind.SCORE, ids=tuple(str(index) for index in range(rows)), labels=(None,) * rows,
        candidate=(candidate,) * rows, champion=(champion,) * rows,
    )  # fmt: skip


def evaluation(*tasks: TaskScores, champion: str | None = "1.0.0", **more: object) -> Evaluation:
    """An evaluation against a champion."""
    return Evaluation(tasks=tasks, champion=champion, earlier_versions=champion is not None, **more)  # type: ignore[arg-type]


def first(scores: TaskScores, **baselines: float) -> TaskScores:
    """The same table without a champion."""
    return replace(scores, champion=None, baselines=baselines or None)


def with_corrections(scores: TaskScores, right: int, total: int) -> TaskScores:
    """The same table with ``total`` corrections of which ``right`` are learned."""
    values = (*[1.0] * right, *[0.0] * (total - right))
    return replace(scores, corrections=RowScores(ids=tuple(f"c{index}" for index in range(total)), candidate=values))


def with_slices(draw: Random, scores: TaskScores, *, early: float = 0.8, stress: int = 60) -> TaskScores:
    """The same table with everything that slices are made of: five months, three senders, disturbed texts, a best version."""
    rows = range(scores.rows)
    began = datetime(2025, 1, 1, tzinfo=UTC)
    right = {
        who: list(values or ()) for who, values in (("candidate", scores.candidate), ("champion", scores.champion))
    }
    chosen = [draw.randrange(scores.rows) for _ in range(stress)] if scores.rows else []

    def disturbed(who: str) -> tuple[float, ...] | None:
        return tuple(right[who][row] for row in chosen) if right[who] else None

    return replace(
        scores, times=tuple(began + timedelta(days=150 * row / max(scores.rows, 1)) for row in rows),
        sources=tuple(draw.choice(("desk", "wire", "readers")) for _ in rows),
        earlier=tuple(draw.random() < early for _ in rows), batch_labels=tuple(sorted(scores.slices))[:-1],
        stress={
            kind: RowScores(
                ids=tuple(f"{kind}-{number}" for number in range(len(chosen))), candidate=disturbed("candidate") or (),
                champion=disturbed("champion"),
            )
            for kind in ("case", "length", "negation", "typos")
        },
        metrics={"candidate": {"macro_f1": draw.random()}},
        reference=Reference(
            version="0.9.0", looked_at=3, scores=tuple(draw.choice(right["champion"]) for _ in rows) if right["champion"] else None
        ),
    )  # fmt: skip
