"""Sixty candidates, thirty honest and thirty damaged, judged by the evaluation and the gates of a training run.

    PYTHONPATH=include nice .venv/bin/python benchmarks/bench_gates.py --data news.jsonl [--seed 7] [--rows 1000] [--small] [--json OUT]

``--data``: one JSON object per line with ``text`` and ``label``. The rows are cut into a start set (800 rows, the first
champion), a pool of new rows, a holdout and a large test set that no gate sees. Honest candidates train on clean rows of
the pool; damaged ones on rows with flipped labels (5, 10, 20 %), on rows of one label that all carry another one, or have
random weights. As in a run, a tenth of every batch joins the holdout with the labels that it came with. Each candidate goes
through ``examine``, ``Evaluation.from_record`` and ``judge`` with the default gate settings. The worst slice drop is
measured on the test set, with the true labels. ``--small``: ten candidates.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from uuid import UUID, uuid5

from benchmarks.machine import table

from perennial.domain.example import TrainingRow
from perennial.domain.model import TaskBatch, Trainer, Workbench
from perennial.domain.words import GateAction, Mode, TaskKind
from perennial.fleet.agent import Gates
from perennial.flows.train.measure import Exam, examine
from perennial.gates.gate import GateSettings
from perennial.gates.report import GateReport, judge
from perennial.gates.scores import Evaluation, label_slices
from perennial.selection.replay import stratified_replay
from perennial.trainers import LocalBaseStore, MemoryEmbeddings, _component
from perennial.trainers.ewc_text import EwcText

JOB, EARLIER = UUID(int=2), UUID(int=1)
DAMAGES = ("flips 5 %", "flips 10 %", "flips 20 %", "one slice only", "random weights")
SIZES = (50, 100, 200, 400)
REPLAY = 200
WORST = 0.03  # no damaged candidate with a larger drop of any slice may pass


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The rows of one measurement, apart from each other."""

    start: tuple[TrainingRow, ...]
    pool: tuple[TrainingRow, ...]
    holdout: tuple[TrainingRow, ...]
    test: tuple[TrainingRow, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels."""
        return tuple(sorted({row.label for row in self.start}))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one candidate. ``worst``: its largest drop of a label's recall on the test set, as a share."""

    kind: str
    size: int
    action: GateAction
    worst: float
    overall: float
    seconds: float
    summary: str


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1000, help="of the holdout and of the test set, each")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    parts = cut(arguments.data, arguments.seed, arguments.rows)
    honest, each = (5, 1) if arguments.small else (30, 6)
    with tempfile.TemporaryDirectory() as folder:
        results = list(run(parts, Path(folder), seed=arguments.seed, honest=honest, each=each))
    show(results, parts)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    passed = [result for result in results if result.kind == "honest" and result.action is GateAction.PASS]
    slipped = harmful(results)
    print(
        f"\nhonest that pass: {len(passed)} of {honest}; damaged that pass with a slice down more than 3 points: {len(slipped)}"
    )


def harmful(results: Sequence[Result]) -> list[Result]:
    """Damaged candidates that passed although a slice of the test set fell by more than ``WORST``."""
    return [
        one for one in results
        if one.kind != "honest" and one.action is GateAction.PASS and one.worst > WORST
    ]  # fmt: skip


def cut(data: Path, seed: int, most: int = 1000) -> Parts:
    """Read the file and deal its rows out; ids come from the texts."""
    rows = []
    for line in data.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        identity = uuid5(UUID(int=0), record["text"])
        rows.append(TrainingRow(example_id=identity, task="topic", text=record["text"], label=str(record["label"])))
    rows = list({row.example_id: row for row in rows}.values())
    Random(seed).shuffle(rows)
    if len(rows) < 2000:
        raise SystemExit(f"{len(rows)} different texts are too few; give a file with 2,000 or more")
    start, pool = 800, min(400, len(rows) // 6)
    held = (len(rows) - start - pool) // 2
    holdout = tuple(replace(row, job_id=EARLIER) for row in rows[start + pool : start + pool + held])
    return Parts(
        start=tuple(rows[:start]), pool=tuple(rows[start : start + pool]), holdout=holdout[:most],
        test=tuple(rows[start + pool + held :])[:most],
    )  # fmt: skip


def run(parts: Parts, folder: Path, *, seed: int, honest: int, each: int) -> Iterator[Result]:
    """Make the champion and then every candidate from it; ``each`` damaged ones per kind of damage."""
    bench = Workbench(bases=LocalBaseStore(folder=folder / "bases"), embeddings=MemoryEmbeddings())
    trainer = EwcText()
    champion = folder / "champion"
    champion.mkdir()
    trainer.fit(_batch(parts, parts.start, ()), None, champion, seed=seed, bench=bench)
    kinds = ["honest"] * honest + [damage for damage in DAMAGES for _ in range(each)]
    for number, kind in enumerate(kinds):
        draw = Random(f"{seed}:{number}")
        size = SIZES[number % len(SIZES)]
        batch = draw.sample(parts.pool, size)
        replay = stratified_replay(parts.start, REPLAY, seed=number)
        yield judged(
            parts,
            trainer,
            bench,
            champion,
            folder / str(number),
            kind,
            spoiled(kind, batch, parts, draw),
            replay,
            number,
        )


def spoiled(kind: str, batch: Sequence[TrainingRow], parts: Parts, draw: Random) -> list[TrainingRow]:
    """The batch with the labels that its damage gives it."""
    if kind.startswith("flips"):
        share = int(kind.split()[1]) / 100
        chosen = set(draw.sample(range(len(batch)), round(share * len(batch))))
        others = {label: [other for other in parts.labels if other != label] for label in parts.labels}
        return [
            replace(row, label=draw.choice(others[row.label])) if index in chosen else row
            for index, row in enumerate(batch)
        ]
    if kind == "one slice only":
        victim, other = draw.sample(parts.labels, 2)
        return [replace(row, label=other) if row.label == victim else row for row in batch]
    return list(batch)


def judged(
    parts: Parts, trainer: Trainer, bench: Workbench, champion: Path, out: Path, kind: str, batch: list[TrainingRow],
    replay: Sequence[TrainingRow], seed: int,
) -> Result:  # fmt: skip
    """Train one candidate, evaluate it, ask the gates, and look at the truth."""
    began = time.monotonic()
    held = tuple(replace(row, job_id=JOB) for row in batch[::10])
    new = tuple(row for index, row in enumerate(batch) if index % 10)
    out.mkdir()
    trainer.fit(_batch(parts, new, tuple(replay)), champion, out, seed=seed, bench=bench)
    if kind == "random weights":
        out = _scrambled(out, seed)
    report = ask(parts, trainer, bench, champion, out, new, tuple(replay), held)
    seconds = time.monotonic() - began
    worst, overall = _truth(parts, trainer, bench, champion, out)
    return Result(
        kind=kind, size=len(batch), action=report.action, worst=worst, overall=overall, seconds=seconds, summary=report.summary
    )  # fmt: skip


def ask(
    parts: Parts, trainer: Trainer, bench: Workbench, champion: Path, candidate: Path, new: tuple[TrainingRow, ...],
    replay: tuple[TrainingRow, ...], held: tuple[TrainingRow, ...],
) -> GateReport:  # fmt: skip
    """The verdict of the very code that a training run uses, with the default settings."""
    settings = GateSettings.of(asdict(Gates()), rollback_threshold=0.05)
    record = examine(
        Exam(
            trainer=trainer, bench=bench, settings=settings, agent="bench", task="topic", kind=TaskKind.CLASSIFICATION,
            labels=parts.labels, candidate=candidate, champion=champion, holdout=(*parts.holdout, *held), batch=new,
            replay=replay, job_id=JOB, best_version="1.0.0",
        )
    )  # fmt: skip
    whole = {"champion": "1.0.0", "tasks": {"topic": record}, "mode": "online", "reason": "threshold"}
    return judge(Evaluation.from_record(json.loads(json.dumps(whole)), earlier_versions=True), settings, major=False)


def _batch(parts: Parts, new: tuple[TrainingRow, ...], replay: tuple[TrainingRow, ...]) -> TaskBatch:
    return TaskBatch(
        agent="bench", task="topic", kind=TaskKind.CLASSIFICATION, labels=parts.labels, new=new, replay=replay,
        mode=Mode.ONLINE,
    )  # fmt: skip


def _scrambled(folder: Path, seed: int) -> Path:
    import numpy as np

    saved = _component.read(folder)
    out = folder.with_name(f"{folder.name}-random")
    out.mkdir()
    theta = np.random.default_rng(seed).normal(0.0, float(saved.theta.std()), saved.theta.shape)
    _component.write(out, saved.record, theta, saved.fisher, saved.local)
    return out


def _truth(parts: Parts, trainer: Trainer, bench: Workbench, champion: Path, candidate: Path) -> tuple[float, float]:
    texts = [row.text for row in parts.test]
    right = [
        [prediction.output == row.label for prediction, row in zip(model.predict(texts), parts.test, strict=True)]
        for model in (trainer.load(champion, bench), trainer.load(candidate, bench))
    ]
    drops = [
        sum(right[0][row] - right[1][row] for row in rows) / len(rows)
        for rows in label_slices([str(row.label) for row in parts.test]).values()
    ]
    return max(drops), (sum(right[1]) - sum(right[0])) / len(texts)


def show(results: Sequence[Result], parts: Parts) -> None:
    """The table of docs/trust.md."""
    rows = []
    for kind in dict.fromkeys(result.kind for result in results):
        mine = [result for result in results if result.kind == kind]
        count = Counter(result.action for result in mine)
        passed = [result.worst for result in mine if result.action is GateAction.PASS]
        rows.append((
            kind, len(mine), count[GateAction.PASS], count[GateAction.APPROVE], count[GateAction.HOLD],
            f"{max(passed) * 100:.1f}" if passed else "-",
            f"{min(result.worst for result in mine) * 100:.1f} .. {max(result.worst for result in mine) * 100:.1f}",
            f"{sum(result.seconds for result in mine) / len(mine):.2f}",
        ))  # fmt: skip
    table(
        f"Gates on {len(results)} candidates (holdout {len(parts.holdout)}, test set {len(parts.test)} rows)",
        ("kind", "made", "pass", "ask a person", "held", "worst slice drop among passed, points",
         "worst slice drop, all, points", "seconds each"),
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
