"""One training of ``ewc_text``: from nothing, or onwards from a champion. Everything here runs in a training task."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from perennial.domain.example import TrainingRow
from perennial.domain.model import Artefact, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import TrainingError
from perennial.trainers import _component
from perennial.trainers._answers import KNOTS, merged_spread, residual_spread, targets_of
from perennial.trainers._component import Component, Saved
from perennial.trainers._encoder import Encoder, embed, encoder_of, put_base
from perennial.trainers._head import (
    Descent,
    Flags,
    Floats,
    Insisted,
    Insistence,
    Objective,
    best_temperature,
    fisher_diagonal,
    grow,
    insist,
    minimise,
    squash,
    with_ones,
)  # fmt: skip
from perennial.trainers._neighbourhood import Neighbourhood, joined, reach_of
from perennial.trainers._tune import Pass, Plan, tune

if TYPE_CHECKING:
    from perennial.trainers.ewc_text import EwcText

logger = logging.getLogger(__name__)

_FOLDS = 3
_URGENT = 2  # priority from which on a row is a correction that every later candidate must answer
_CALIBRATION = (30, 1500)  # fewest and most rows behind a temperature


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a training found, before it is written down."""

    encoder: Encoder
    labels: tuple[str, ...]
    theta: Floats
    fisher: Floats
    local: Neighbourhood
    seen: int
    temperature: float
    spread: tuple[tuple[float, float], ...]
    insisted: Insisted
    probabilities: Floats  # of new rows, then replay
    before: Floats | None  # the champion's, likewise
    label_rows: tuple[int, ...]
    started_from: str
    tuned: bool
    encoder_pass: Pass | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Settings and inputs of one training."""

    settings: EwcText
    batch: TaskBatch
    out: Path
    seed: int
    bench: Workbench
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[TrainingRow, ...]:
        """New rows, then replay: the order of every array here."""
        return (*self.batch.new, *self.batch.replay)

    def champion(self, start: Path | None) -> Saved | None:
        """The component to go on from; None for a first training, or when another encoder is asked for (a new base is
        a new start).
        """
        if start is None:
            return None
        saved = _component.read(start)
        record = saved.record
        if record.kind is not self.batch.kind or record.trainer["key"] != self.settings.key:
            raise TrainingError(
                f"the champion of {self.batch.agent}.{self.batch.task} is a {record.kind} model of {record.trainer['key']}; "
                "train without a start, which makes a major version"
            )
        if record.encoder["name"] != self.settings.encoder:
            logger.info("%s.%s gets another encoder: a new start", self.batch.agent, self.batch.task)
            return None
        if tuple(self.batch.labels[: len(record.labels)]) != record.labels:
            raise TrainingError(
                f"the labels of {self.batch.agent}.{self.batch.task} must begin with the champion's {len(record.labels)}, in its order; "
                "use selection.choose_labels"
            )
        return saved

    # --- the two ways ---------------------------------------------------------------------------------------------------------

    def first(self, base_changed: bool) -> Artefact:
        """A head on the frozen encoder."""
        encoder = encoder_of(put_base(self.settings.encoder, self.bench, self.out), self.bench)
        x = self._embedded(encoder)
        hard = targets_of(self.rows, self.batch.kind, self.batch.labels)
        began = perf_counter()
        zeros = np.zeros((x.shape[1], hard.shape[1]))
        objective = _ridge(x, hard, self.settings.ridge)
        must = _corrections(self.rows)
        insisted = insist(objective, zeros, self._rules(hard, must, ~must), np.ones(len(x)))
        theta = _modest(insisted.descent.theta, x, hard)
        temperature, spread, quality = self._calibrate(x, hard)
        self.seconds["head"] = perf_counter() - began
        return self._finish(
            Outcome(
                encoder=encoder, labels=self.batch.labels, theta=theta, fisher=fisher_diagonal(theta, x), seen=len(x),
                local=Neighbourhood.empty(x.shape[1] - 1, hard.shape[1]),
                temperature=temperature, spread=spread, insisted=insisted, probabilities=squash(x @ theta), before=None,
                label_rows=_label_rows(hard), started_from="", tuned=False, extra={**quality, "base_changed": float(base_changed)},
            )
        )  # fmt: skip

    def onwards(self, champion: Saved) -> Artefact:
        """From the champion: the encoder too in batch mode, then the head."""
        settings, count = self.settings, len(self.batch.new)
        old = encoder_of(str(champion.record.encoder["digest"]), self.bench)
        x_old = self._embedded(old)
        hard = targets_of(self.rows, self.batch.kind, self.batch.labels)
        anchor, fisher = self._grown(champion, x_old[count:] if len(self.batch.replay) else x_old)
        before = squash(x_old @ champion.theta + champion.local.scores(x_old))
        before = np.hstack([before, np.zeros((len(before), hard.shape[1] - before.shape[1]))])
        must = self._must(before, hard)
        targets = self._targets(before, hard, must)

        encoder, done = (old, None) if self.batch.mode is not Mode.BATCH else self._tuned(old, targets, anchor)
        x = x_old if done is None else self._embedded(encoder)
        began = perf_counter()
        past = min(champion.record.seen, settings.memory_rows)
        fresh = self._fresh(champion, hard.shape[1])
        strengths = (settings.head_penalty * past, settings.pull * past, settings.ridge * len(x))
        local = self._widened(champion.local, x, must, moved=done is not None)
        objective = joined(_consolidated(x, targets, anchor, fisher, strengths, fresh), local, settings.local_ridge)
        watch = np.arange(len(x)) >= count
        insisted = insist(
            objective, objective.anchor, self._rules(hard, must, watch & ~must), _row_weights(hard, fresh, count, past)
        )
        theta, values = np.split(insisted.descent.theta, [x.shape[1]])
        now = fisher_diagonal(theta, x[:count] if done is None else x)
        share = 1.0 if done is not None else count / (count + past)
        self.seconds["head"] = perf_counter() - began
        return self._finish(
            Outcome(
                encoder=encoder, labels=self.batch.labels, theta=theta, fisher=share * now + (1.0 - share) * fisher,
                local=replace(local, values=values), seen=champion.record.seen + count,
                temperature=champion.record.temperature, spread=self._later_spread(champion, before[:count], hard[:count]),
                insisted=insisted, probabilities=squash(objective.x @ insisted.descent.theta), before=before,
                label_rows=_added(champion.record.label_rows, _label_rows(hard[:count])),
                started_from=champion.digest, tuned=done is not None or bool(champion.record.encoder["tuned"]),
                encoder_pass=done, extra={"fisher_start_mean": float(fisher.mean())},
            )
        )  # fmt: skip

    # --- parts ----------------------------------------------------------------------------------------------------------------

    def _embedded(self, encoder: Encoder) -> Floats:
        began = perf_counter()
        vectors = embed(
            [row.text for row in self.rows], encoder, self.bench.embeddings, max_tokens=self.settings.max_tokens
        )
        self.seconds["embed"] = self.seconds.get("embed", 0.0) + perf_counter() - began
        return with_ones(vectors)

    def _grown(self, champion: Saved, x: Floats) -> tuple[Floats, Floats]:
        """The champion's head and Fisher with columns for the new labels."""
        old = champion.record.labels
        added = self.batch.labels[len(old) :]
        if not added:
            return champion.theta, champion.fisher
        counts = np.array([sum(row.label == label for row in self.batch.new) for label in added], dtype=np.int64)
        return grow(champion.theta, champion.fisher, x, counts, champion.record.seen)

    def _fresh(self, champion: Saved, outputs: int) -> Flags:
        """Which outputs are learned as in a first training: new labels, and declared ones that no row has shown yet."""
        if self.batch.kind is TaskKind.SCORE:
            return np.zeros(1, dtype=np.bool_)
        return np.array([rows == 0 for rows in _added(champion.record.label_rows, (0,) * outputs)], dtype=np.bool_)

    def _widened(self, known: Neighbourhood, x: Floats, must: Flags, *, moved: bool) -> Neighbourhood:
        """Keys of the champion's corrections and of the rows that must be right; of those alone when the encoder moved."""
        outputs = len(self.batch.labels) or 1
        if moved:
            known = Neighbourhood.empty(x.shape[1] - 1, outputs)
        if not must.any():
            return known.widened(x[:0], outputs, (known.far, known.near))
        reach = (known.far, known.near) if len(known.keys) else reach_of(x[~must])
        return known.widened(x[must], outputs, reach)

    def _must(self, before: Floats, hard: Floats) -> Flags:
        """New corrections, replayed ones that the champion answers right, and urgent ones in any case.

        An urgent one that the champion never learned was in a candidate that gave way to this one: nothing else brings it back.
        """
        known = self._right(before, hard, 0.0, self.settings.score_tolerance)
        new = np.arange(len(hard)) < len(self.batch.new)
        urgent = np.array([row.priority >= _URGENT for row in self.rows], dtype=np.bool_)
        return np.asarray(_corrections(self.rows) & (new | known | urgent))

    def _targets(self, before: Floats, hard: Floats, must: Flags) -> Floats:
        """New rows and rows that must be right: their label. Replay: mostly the champion's answer."""
        targets = hard.copy()
        soft = ~must
        soft[: len(self.batch.new)] = False
        if self.batch.kind is TaskKind.CLASSIFICATION:
            # not for labels that the champion cannot know
            soft &= before[np.arange(len(hard)), hard.argmax(axis=1)] > 0.0
        # beside corrections alone replay has one task: that nothing else moves. Its labels would pull at every correction anew
        share = 1.0 if _corrections(self.batch.new).all() else self.settings.distil
        targets[soft] = share * before[soft] + (1.0 - share) * hard[soft]
        return targets

    def _right(self, p: Floats, hard: Floats, margin: float, tolerance: float) -> Flags:
        """Which rows are answered right: the label leads by the margin, or the score is within the tolerance."""
        if self.batch.kind is TaskKind.SCORE:
            return np.asarray(np.abs(p[:, 0] - hard[:, 0]) <= tolerance)
        mine = (p * hard).sum(axis=1)
        others = np.where(hard > 0, -1.0, p).max(axis=1)
        return np.asarray(mine > others + margin)

    def _rules(self, hard: Floats, must: Flags, watch: Flags) -> Insistence:
        settings = self.settings

        def right(p: Floats) -> Flags:
            return self._right(p, hard, settings.margin, 0.8 * settings.score_tolerance)

        def loss_of(p: Floats) -> Floats:
            if self.batch.kind is TaskKind.SCORE:
                return np.asarray(np.abs(p[:, 0] - hard[:, 0]))
            return 1.0 - self._right(p, hard, 0.0, 0.0).astype(np.float64)

        return Insistence(
            must=must, watch=watch, right=right, loss_of=loss_of, rounds=settings.rounds, budget=settings.replay_budget
        )

    def _tuned(self, old: Encoder, targets: Floats, theta: Floats) -> tuple[Encoder, Pass]:
        """Move the encoder and put it into the store."""
        settings = self.settings
        plan = Plan(
            encoder_lr=settings.encoder_lr, head_lr=settings.head_lr, epochs=settings.epochs, batch_size=settings.batch_size,
            penalty=settings.encoder_penalty, fisher_rows=settings.fisher_rows, max_tokens=settings.max_tokens, bf16=settings.bf16,
            seed=self.seed,
        )  # fmt: skip
        past = self.batch.replay or self.batch.new
        # below the folder of this training: what a killed one leaves goes with its job
        with tempfile.TemporaryDirectory(prefix=".perennial-encoder-", dir=self.out) as temporary:
            done = tune(
                old, [row.text for row in self.rows], targets, [row.text for row in past], theta, plan, Path(temporary)
            )
            digest = self.bench.bases.put(Path(temporary))
        self.seconds["fisher"], self.seconds["encoder"] = done.seconds_fisher, done.seconds_steps
        return encoder_of(digest, self.bench), done

    def _calibrate(self, x: Floats, hard: Floats) -> tuple[float, tuple[tuple[float, float], ...], dict[str, float]]:
        """Temperature or spread, from heads that did not see the row: three folds drawn by the seed."""
        chosen = np.random.default_rng(self.seed).permutation(len(x))[: _CALIBRATION[1]]
        unknown = tuple((0.25, 0.0) for _ in KNOTS)
        if len(chosen) < _CALIBRATION[0]:
            return 1.0, unknown if self.batch.kind is TaskKind.SCORE else (), {}
        scores = np.zeros((len(chosen), hard.shape[1]))
        for fold in range(_FOLDS):
            held = np.arange(len(chosen)) % _FOLDS == fold
            rest = chosen[~held]
            objective = _ridge(x[rest], hard[rest], self.settings.ridge)
            scores[held] = (
                x[chosen[held]] @ minimise(objective, np.ones(len(rest)), np.zeros((x.shape[1], hard.shape[1]))).theta
            )
        wanted, p = hard[chosen], squash(scores)
        if self.batch.kind is TaskKind.SCORE:
            return 1.0, residual_spread(p[:, 0], wanted[:, 0]), {"fold_mae": float(np.abs(p - wanted).mean())}
        return best_temperature(scores, wanted), (), {"fold_accuracy": float(self._right(p, wanted, 0.0, 0.0).mean())}

    def _later_spread(self, champion: Saved, before: Floats, hard: Floats) -> tuple[tuple[float, float], ...]:
        """The champion has not seen the new rows, so its residuals on them are honest; corrections are a biased
        choice and stay out.
        """
        if self.batch.kind is not TaskKind.SCORE:
            return ()
        fair = ~_corrections(self.batch.new)
        if not fair.any():
            return champion.record.spread
        return merged_spread(champion.record.spread, residual_spread(before[fair, 0], hard[fair, 0]))

    # --- what is left behind --------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome) -> Artefact:
        """Write the component and say what happened."""
        settings = self.settings
        corrections = _corrections(self.batch.new)
        record = Component(
            trainer={"key": settings.key, "settings": asdict(settings)}, agent=self.batch.agent, task=self.batch.task, kind=self.batch.kind,
            labels=outcome.labels, mode=str(self.batch.mode), seed=self.seed, seen=outcome.seen, temperature=outcome.temperature,
            encoder={
                "name": settings.encoder, "digest": outcome.encoder.digest, "tuned": outcome.tuned, "dimension": outcome.encoder.dimension,
            },
            rows={"new": len(self.batch.new), "replay": len(self.batch.replay), "corrections": int(corrections.sum())},
            label_rows=outcome.label_rows, spread=outcome.spread, started_from=outcome.started_from,
        )  # fmt: skip
        _component.write(self.out, record, outcome.theta, outcome.fisher, outcome.local)
        metrics = self._metrics(outcome)
        logger.info(
            "%s.%s trained: %d new, %d replayed, EWC penalty %.3g, %d of %d corrections learned",
            self.batch.agent, self.batch.task, len(self.batch.new), len(self.batch.replay), metrics["ewc_penalty"],
            metrics["corrections_learned"], metrics["corrections"],
        )  # fmt: skip
        return Artefact(
            path=self.out,
            task=self.batch.task,
            labels=outcome.labels,
            metrics=metrics,
            details=self._details(record, outcome),
        )

    def _learned(self, outcome: Outcome) -> list[tuple[TrainingRow, bool]]:
        """New corrections and whether they are answered right now."""
        hard = targets_of(self.rows, self.batch.kind, self.batch.labels)
        right = self._right(outcome.probabilities, hard, 0.0, self.settings.score_tolerance)
        return [(row, bool(right[index])) for index, row in enumerate(self.batch.new) if _is_correction(row)]

    def _metrics(self, outcome: Outcome) -> dict[str, float]:
        descent = outcome.insisted.descent
        learned = self._learned(outcome)
        found = {
            "loss": descent.losses[-1], "ewc_penalty": descent.penalties[-1], "ewc_penalty_mean": float(np.mean(descent.penalties)),
            "fisher_mean": float(outcome.fisher.mean()), "corrections": float(len(learned)),
            "corrections_learned": float(sum(right for _, right in learned)), "temperature": outcome.temperature,
            "corrections_kept": float(len(outcome.local.keys)),
            **{f"seconds_{name}": value for name, value in self.seconds.items()}, **outcome.extra,
        }  # fmt: skip
        if done := outcome.encoder_pass:
            found |= {
                "encoder_loss": done.losses[-1], "encoder_ewc_penalty": done.penalties[-1],
                "encoder_ewc_penalty_mean": float(np.mean(done.penalties)), "encoder_fisher_mean": done.fisher_mean,
            }  # fmt: skip
        hard = targets_of(self.rows, self.batch.kind, self.batch.labels)
        for part, rows in (("new", slice(0, len(self.batch.new))), ("replay", slice(len(self.batch.new), None))):
            for when, p in (("before", outcome.before), ("after", outcome.probabilities)):
                if p is not None and len(p[rows]):
                    found |= self._quality(f"{part}_{when}", p[rows], hard[rows])
        return found

    def _quality(self, name: str, p: Floats, hard: Floats) -> dict[str, float]:
        if self.batch.kind is TaskKind.SCORE:
            return {f"mae_{name}": float(np.abs(p - hard).mean())}
        return {f"accuracy_{name}": float(self._right(p, hard, 0.0, 0.0).mean())}

    def _details(self, record: Component, outcome: Outcome) -> dict[str, Any]:
        descent: Descent = outcome.insisted.descent
        done = outcome.encoder_pass
        return {
            "component": {**asdict(record), "kind": str(record.kind)},
            "losses": list(descent.losses), "ewc_penalties": list(descent.penalties),
            "encoder_pass": asdict(done) if done else None,
            "insisting": {
                "rounds": outcome.insisted.rounds, "heaviest_weight": outcome.insisted.heaviest,
                "budget_spent": outcome.insisted.budget_spent,
                "not_learned": [str(row.example_id) for row, right in self._learned(outcome) if not right],
            },
            "device": str(outcome.encoder.device), "threads": torch.get_num_threads(),
        }  # fmt: skip


def _is_correction(row: TrainingRow) -> bool:
    return row.correction or row.priority >= _URGENT


def _corrections(rows: Sequence[TrainingRow]) -> Flags:
    return np.array([_is_correction(row) for row in rows], dtype=np.bool_)


def _ridge(x: Floats, targets: Floats, ridge: float) -> Objective:
    """A first training: every weight is drawn towards zero, the bias is free."""
    shape = (x.shape[1], targets.shape[1])
    precision = np.full(shape, ridge * len(x))
    precision[-1] = 0.0
    return Objective(x=x, targets=targets, anchor=np.zeros(shape), precision=precision, ewc=np.zeros(shape))


def _label_rows(hard: Floats) -> tuple[int, ...]:
    """Rows per label; for scores the rows behind the one output."""
    return tuple(int(count) for count in hard.sum(axis=0)) if hard.shape[1] > 1 else (len(hard),)


def _added(one: Sequence[int], two: Sequence[int]) -> tuple[int, ...]:
    """Sums by place; the second may be longer."""
    padded = (*one, *(0,) * (len(two) - len(one)))
    return tuple(left + right for left, right in zip(padded, two, strict=True))


def _modest(theta: Floats, x: Floats, hard: Floats) -> Floats:
    """A declared label without a row gets the odds of a single row, where the fit would make it all but impossible to learn later."""
    empty = np.flatnonzero(hard.sum(axis=0) == 0) if hard.shape[1] > 1 else np.array([], dtype=np.int64)
    if not len(empty):
        return theta
    held = np.delete(theta, empty, axis=1)
    grown, _ = grow(held, np.zeros_like(held), x, np.ones(len(empty), dtype=np.int64), len(x))
    result = theta.copy()
    result[:, empty] = grown[:, held.shape[1] :]
    return result


def _consolidated(
    x: Floats, targets: Floats, anchor: Floats, fisher: Floats, strengths: tuple[float, float, float], fresh: Flags
) -> Objective:
    """An update: known outputs are drawn towards the champion's parameters, the more the more they mattered.

    ``strengths`` are those of EWC, of the even pull, and of the ridge under which ``fresh`` outputs are learned as in a first training.
    """
    ewc = strengths[0] * fisher
    precision = ewc + strengths[1]
    precision[:-1, fresh] = strengths[2]
    precision[-1, fresh] = 0.0
    return Objective(x=x, targets=targets, anchor=anchor, precision=precision, ewc=np.where(fresh, 0.0, ewc))


def _row_weights(hard: Floats, fresh: Flags, count: int, past: int, most: float = 4.0) -> Floats:
    """Row weights of an update of ``count`` new rows, the rest replayed, when ``past`` rows count as the past.

    1 unless a label is fresh. Then replayed rows stand for all of the past: nothing but them tells a fresh label where it does
    not belong, and its share among the few rows here is not its share in the stream (importance weighting; Saerens et al.,
    Adjusting the outputs of a classifier to new a priori probabilities, 2002). A fresh label with few rows counts as much
    as an average known one, each row ``most`` times at most.

    >>> hard, fresh = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[::-1], np.array([False, True])
    >>> _row_weights(hard, fresh, 1, 20).tolist(), _row_weights(hard, ~fresh & fresh, 1, 20).tolist()
    ([2.0, 10.0, 10.0], [1.0, 1.0, 1.0])
    """
    if not fresh.any():
        return np.ones(len(hard))
    counts = hard.sum(axis=0)
    usual = float(counts[~fresh].mean()) if not fresh.all() else 0.0
    scale = np.where(fresh, np.clip(usual / np.maximum(1.0, counts), 1.0, most), 1.0)
    weights = scale[hard.argmax(axis=1)]
    weights[count:] *= max(1.0, past / max(1, len(hard) - count))
    return np.asarray(weights)
