"""What an update makes a model forget, and what holds it: EWC, replay, both, beside never updating, plain fine-tuning and joint training.

    PYTHONPATH=include:. python benchmarks/bench_forgetting.py --first FILE [--first-label label] --then FILE [--then-label ag4]
                                                               [--seeds 3] [--batch] [--json OUT]
    PYTHONPATH=include:. python benchmarks/bench_forgetting.py --stream FILE [--periods 4] ...

FILE holds JSON Lines with ``text``, a label field, and for ``--stream`` lines in the order of time. ``--first`` and ``--then``: a
champion of ``--past`` rows of the first file is updated once with ``--new`` rows of the second, which has the same labels. ``--stream``:
the file is cut into periods of equally many rows; a champion of the first is updated with each later one in turn; labels with fewer
than ``--rare`` rows in the first period are left out. Rows for tests are drawn by the seed and trained on by nobody.

Forgetting is what the model loses on the tests of the first part, in points; new-data accuracy is that on the tests of the last part.
All methods start from the same champion and see the same rows in the same trainer: plain is it with both penalties zero and nothing
replayed. Updates are online (the head, solved to its end) or, with ``--batch``, move the encoder too. Joint trains a head anew on
everything that was seen.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any
from uuid import UUID

from benchmarks.machine import table

from perennial.domain.example import TrainingRow
from perennial.domain.model import Artefact, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.selection.replay import stratified_replay
from perennial.trainers import LocalBaseStore, MemoryEmbeddings
from perennial.trainers.ewc_text import EwcText

Rows = tuple[TrainingRow, ...]
METHODS = {  # with Elastic Weight Consolidation, and whether old rows are replayed
    "plain fine-tuning": (False, False),
    "EWC": (True, False),
    "replay": (False, True),
    "EWC and replay": (True, True),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stretch of the stream: rows to learn from, and rows to be asked about."""

    train: Rows
    test: Rows


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where models are trained."""

    trainer: EwcText
    tools: Workbench
    folder: Path
    labels: tuple[str, ...]
    replay: int
    seed: int

    def fit(self, trainer: EwcText, new: Rows, old: Rows, start: Path | None, mode: Mode = Mode.ONLINE) -> Artefact:
        """One training."""
        batch = TaskBatch(
            agent="bench",
            task="label",
            kind=TaskKind.CLASSIFICATION,
            labels=self.labels,
            new=new,
            replay=old,
            mode=mode,
        )
        out = Path(tempfile.mkdtemp(dir=self.folder))
        return trainer.fit(batch, start, out, seed=self.seed, bench=self.tools)

    def accuracy(self, model: Artefact, rows: Rows) -> float:
        """Share of right answers."""
        answers = self.trainer.load(model.path, self.tools).predict([row.text for row in rows])
        return mean(float(answer.output == row.label) for answer, row in zip(answers, rows, strict=True))


def compare(lab: Lab, parts: Sequence[Part], mode: Mode) -> dict[str, dict[str, float]]:
    """Forgetting (points) and new-data accuracy (percent) of every method, and the seconds that its updates took."""
    first = parts[0]
    champion = lab.fit(lab.trainer, first.train, (), None)
    before = lab.accuracy(champion, first.test)
    found = {"never update": _figures(lab, champion, parts, before, 0.0)}
    without = replace(lab.trainer, head_penalty=0.0, pull=0.0, encoder_penalty=0.0)
    for name, (consolidates, replays) in METHODS.items():
        trainer = lab.trainer if consolidates else without
        model, seen, took = champion, first.train, 0.0
        for part in parts[1:]:
            old = stratified_replay(seen, lab.replay, seed=lab.seed) if replays else ()
            began = perf_counter()
            model = lab.fit(trainer, part.train, old, model.path, mode)
            took += perf_counter() - began
            seen = (*seen, *part.train)
        found[name] = _figures(lab, model, parts, before, took)
    everything = tuple(row for part in parts for row in part.train)
    began = perf_counter()
    joint = lab.fit(lab.trainer, everything, (), None)
    found["joint training"] = _figures(lab, joint, parts, before, perf_counter() - began)
    return found


def _figures(lab: Lab, model: Artefact, parts: Sequence[Part], before: float, seconds: float) -> dict[str, float]:
    return {
        "forgetting": 100.0 * (before - lab.accuracy(model, parts[0].test)),
        "new": 100.0 * lab.accuracy(model, parts[-1].test),
        "seconds": seconds,
    }


def two_files(chosen: argparse.Namespace, seed: int) -> tuple[list[Part], tuple[str, ...]]:
    """Another source with the same labels."""
    old = _shuffled(read(chosen.first, chosen.first_label, 0), seed)
    new = _shuffled(read(chosen.then, chosen.then_label, 1_000_000), seed)
    labels = tuple(sorted({str(row.label) for row in old}))
    new = tuple(row for row in new if row.label in labels)
    parts = [_cut(old, chosen.past, chosen.tests), _cut(new, chosen.new, chosen.tests)]
    return parts, labels


def periods(chosen: argparse.Namespace, seed: int) -> tuple[list[Part], tuple[str, ...]]:
    """One source as time goes by."""
    rows = read(chosen.stream, chosen.stream_label, 0)
    size = len(rows) // chosen.periods
    cut = [rows[number * size : (number + 1) * size] for number in range(chosen.periods)]
    often = Counter(str(row.label) for row in cut[0])
    labels = tuple(sorted(label for label, count in often.items() if count >= chosen.rare))
    kept = [_shuffled([row for row in part if row.label in labels], seed) for part in cut]
    sizes = [chosen.past, *[chosen.new] * (chosen.periods - 1)]
    return [
        _cut(part, min(most, 2 * len(part) // 3), chosen.tests) for part, most in zip(kept, sizes, strict=True)
    ], labels


def read(path: Path, field: str, first: int) -> Rows:
    """Labelled rows of a file in its order; of texts that repeat, the first."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = {record["text"]: record[field] for record in reversed(records) if record.get(field) is not None}
    ordered = dict.fromkeys(record["text"] for record in records if record["text"] in known)
    return tuple(
        TrainingRow(example_id=UUID(int=first + number), task="label", text=text, label=str(known[text]))
        for number, text in enumerate(ordered)
    )


def _shuffled(rows: Sequence[TrainingRow], seed: int) -> Rows:
    drawn = list(rows)
    random.Random(seed).shuffle(drawn)
    return tuple(drawn)


def _cut(rows: Rows, train: int, test: int) -> Part:
    return Part(train=rows[:train], test=rows[train : train + test])


def show(title: str, runs: Sequence[dict[str, dict[str, float]]], parts: Sequence[Part]) -> None:
    """One line a method: mean over the seeds with the smallest and the largest."""
    rows = []
    for name in runs[0]:
        cells = [name]
        for figure, digits in (("forgetting", 1), ("new", 1), ("seconds", 2)):
            values = [run[name][figure] for run in runs]
            cells.append(f"{mean(values):.{digits}f} [{min(values):.{digits}f}..{max(values):.{digits}f}]")
        rows.append(cells)
    sizes = ", ".join(f"{len(part.train)} + {len(part.test)}" for part in parts)
    table(
        f"{title}; {len(runs)} seeds; rows to learn + to test, part by part: {sizes}",
        ("method", "forgetting, points", "new-data accuracy, %", "seconds of the updates"),
        rows,
    )


def main() -> None:
    """Run and print one table for each comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=Path)
    parser.add_argument("--first-label", default="label")
    parser.add_argument("--then", type=Path)
    parser.add_argument("--then-label", default="label")
    parser.add_argument("--stream", type=Path)
    parser.add_argument("--stream-label", default="label")
    parser.add_argument("--periods", type=int, default=4)
    parser.add_argument("--rare", type=int, default=30)
    parser.add_argument("--past", type=int, default=1000)
    parser.add_argument("--new", type=int, default=300)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--replay", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", action="store_true", help="move the encoder too (slow)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the trainer")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    mode = Mode.BATCH if chosen.batch else Mode.ONLINE
    trainer = EwcText(**{name: json.loads(value) for name, value in (item.split("=") for item in chosen.set)})
    plans = []
    if chosen.first and chosen.then:
        plans.append((f"{chosen.first.name}, then {chosen.then.name}, {mode.value}", two_files))
    if chosen.stream:
        plans.append((f"{chosen.stream.name} in the order of time, {mode.value}", periods))
    if not plans:
        parser.error("name --first and --then, or --stream")
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        tools = Workbench(bases=LocalBaseStore(folder=Path(name) / "bases"), embeddings=MemoryEmbeddings(100_000))
        for title, plan in plans:
            runs: list[dict[str, Any]] = []
            parts: Any = []
            for seed in range(1, chosen.seeds + 1):
                parts, labels = plan(chosen, seed)
                lab = Lab(
                    trainer=trainer, tools=tools, folder=Path(name), labels=labels, replay=chosen.replay, seed=seed
                )
                runs.append(compare(lab, parts, mode))
            show(title, runs, parts)
            report[title] = runs
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
