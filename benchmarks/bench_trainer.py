"""What one update of ``ewc_text`` costs and what it breaks: ``PYTHONPATH=include:. python benchmarks/bench_trainer.py FILE.jsonl [--json
OUT]``.

FILE holds JSON Lines with ``text`` and ``label``. Prints four tables, with the machine: corrections (one at a time on
one champion), corrections one after another, threshold updates beside a refit on everything, and a batch update.
Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))

from perennial.domain.example import TrainingRow
from perennial.domain.model import Artefact, Predictor, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.selection.replay import stratified_replay
from perennial.trainers import LocalBaseStore, MemoryEmbeddings
from perennial.trainers.ewc_text import EwcText


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A stream cut in three: holdout, what the champion learned from, and what comes later."""

    trainer: EwcText
    bench: Workbench
    folder: Path
    labels: tuple[str, ...]
    holdout: tuple[TrainingRow, ...]
    past: tuple[TrainingRow, ...]
    later: tuple[TrainingRow, ...]

    def fit(
        self, new: Sequence[TrainingRow], start: Path | None, mode: Mode = Mode.ONLINE, seed: int = 0, replay: int = 200
    ) -> Artefact:
        """One training with a stratified replay of the past."""
        old = stratified_replay(self.past, replay, seed=seed) if start else ()
        batch = TaskBatch(
            agent="bench",
            task="label",
            kind=TaskKind.CLASSIFICATION,
            labels=self.labels,
            new=tuple(new),
            replay=old,
            mode=mode,
        )
        out = Path(tempfile.mkdtemp(dir=self.folder))
        return self.trainer.fit(batch, start, out, seed=seed, bench=self.bench)

    def accuracy(self, artefact: Artefact) -> float:
        """Share of the holdout that is answered right."""
        predictor = self.trainer.load(artefact.path, self.bench)
        answers = predictor.predict([row.text for row in self.holdout])
        return mean(float(answer.output == row.label) for answer, row in zip(answers, self.holdout, strict=True))

    def predictor(self, artefact: Artefact) -> Predictor:
        """The loaded artefact."""
        return self.trainer.load(artefact.path, self.bench)


def corrections(bench: Bench, champion: Artefact, count: int) -> dict[str, Any]:
    """Each of ``count`` rows that the champion gets wrong becomes one correction, trained alone from that champion."""
    base, before = bench.predictor(champion), bench.accuracy(champion)
    answers = base.predict([row.text for row in bench.later])
    wrong = [row for row, answer in zip(bench.later, answers, strict=True) if answer.output != row.label][:count]
    flips, drops, head, whole, rounds = 0, [], [], [], []
    for number, row in enumerate(wrong):
        began = perf_counter()
        made = bench.fit([corrected(row)], champion.path, seed=number)
        whole.append(perf_counter() - began)
        head.append(made.metrics["seconds_head"])
        rounds.append(made.details["insisting"]["rounds"])
        flips += bench.predictor(made).predict([row.text])[0].output == row.label
        drops.append(bench.accuracy(made) - before)
    return {
        "past rows": len(bench.past), "champion accuracy": before, "corrections": len(wrong), "answered right after": flips,
        "holdout change, mean": mean(drops), "holdout change, worst": min(drops), "head ms, median": 1000 * median(head),
        "fit ms, median": 1000 * median(whole), "rounds, mean": mean(rounds),
    }  # fmt: skip


def sequence(bench: Bench, champion: Artefact, count: int) -> dict[str, Any]:
    """``count`` corrections one after another, each from the model before; earlier ones are replayed as corrections."""
    done: list[TrainingRow] = []
    before, current = bench.accuracy(champion), champion
    answers = bench.predictor(champion).predict([row.text for row in bench.later])
    wrong = [row for row, answer in zip(bench.later, answers, strict=True) if answer.output != row.label][:count]
    for number, row in enumerate(wrong):
        old = stratified_replay([*bench.past, *done], 200, seed=number)
        batch = TaskBatch(
            agent="bench",
            task="label",
            kind=TaskKind.CLASSIFICATION,
            labels=bench.labels,
            new=(corrected(row),),
            replay=old,
            mode=Mode.ONLINE,
        )
        current = bench.trainer.fit(
            batch, current.path, Path(tempfile.mkdtemp(dir=bench.folder)), seed=number, bench=bench.bench
        )
        done.append(corrected(row))
    final = bench.predictor(current).predict([row.text for row in wrong])
    return {
        "corrections": len(wrong), "right at the end": sum(a.output == r.label for a, r in zip(final, wrong, strict=True)),
        "holdout change": bench.accuracy(current) - before,
    }  # fmt: skip


def thresholds(bench: Bench, champion: Artefact, step: int) -> dict[str, Any]:
    """Online updates of ``step`` rows until the later rows are used up, beside one head fitted to everything."""
    current, past, took = champion, list(bench.past), []
    for number, at in enumerate(range(0, len(bench.later) - step + 1, step)):
        new = bench.later[at : at + step]
        old = stratified_replay(past, 200, seed=number)
        batch = TaskBatch(
            agent="bench",
            task="label",
            kind=TaskKind.CLASSIFICATION,
            labels=bench.labels,
            new=new,
            replay=old,
            mode=Mode.ONLINE,
        )
        current = bench.trainer.fit(
            batch, current.path, Path(tempfile.mkdtemp(dir=bench.folder)), seed=number, bench=bench.bench
        )
        took.append(current.metrics["seconds_head"])
        past += new
    refit = bench.fit(past, None)
    return {
        "updates": len(took), "rows each": step, "accuracy before": bench.accuracy(champion), "accuracy after": bench.accuracy(current),
        "accuracy of a refit on all": bench.accuracy(refit), "head ms, median": 1000 * median(took),
        "refit head ms": 1000 * refit.metrics["seconds_head"],
    }  # fmt: skip


def batch_update(bench: Bench, champion: Artefact, rows: int) -> dict[str, Any]:
    """One batch update (encoder and head) beside an online update with the same rows; embeddings of the rows are
    known.
    """
    new = bench.later[:rows]
    online = bench.fit(new, champion.path)
    began = perf_counter()
    made = bench.fit(new, champion.path, Mode.BATCH)
    took = perf_counter() - began
    return {
        "new rows": rows, "replayed": 200, "seconds": took, "of it encoder": made.metrics["seconds_encoder"],
        "of it Fisher": made.metrics["seconds_fisher"], "of it embedding": made.metrics["seconds_embed"],
        "encoder EWC penalty": made.metrics["encoder_ewc_penalty"], "encoder Fisher, mean": made.metrics["encoder_fisher_mean"],
        "accuracy before": bench.accuracy(champion), "accuracy online": bench.accuracy(online), "accuracy batch": bench.accuracy(made),
    }  # fmt: skip


def ewc_time(bench: Bench, champion: Artefact, rounds: int) -> dict[str, Any]:
    """A batch update of 50 new and 200 replayed rows with EWC beside the same without, taking turns in one process.

    Processor seconds of one thread, since others may use the machine. The Fisher diagonal is part of the update, and so are the
    embeddings by the new encoder: each round has a seed of its own, so that no encoder is one that the cache knows. The first
    pair warms up and does not count. The interval is that of the median ratio of pairs (bootstrap, 95 %).
    """
    from perennial.trainers._threads import torch_threads

    plain = replace(bench, trainer=replace(bench.trainer, head_penalty=0.0, pull=0.0, encoder_penalty=0.0))
    took: dict[str, list[float]] = {"EWC": [], "plain": []}
    with torch_threads(1):
        for number in range(rounds + 1):
            turns = [("EWC", bench), ("plain", plain)]
            for name, kind in turns if number % 2 else reversed(turns):
                began = process_time()
                kind.fit(bench.later[:50], champion.path, Mode.BATCH, seed=1 + number)
                took[name].append(process_time() - began)
    pairs = [one / other for one, other in zip(took["EWC"][1:], took["plain"][1:], strict=True)]
    dice = random.Random(0)
    again = sorted(median(dice.choices(pairs, k=len(pairs))) for _ in range(2000))
    return {
        "rounds": rounds, "EWC, processor s, median": median(took["EWC"][1:]), "plain, processor s, median": median(took["plain"][1:]),
        "EWC over plain": median(pairs), "95 % interval": f"{again[50]:.3f}..{again[-51]:.3f}",
    }  # fmt: skip


def corrected(row: TrainingRow) -> TrainingRow:
    """The row as an urgent correction."""
    return TrainingRow(
        example_id=row.example_id, task=row.task, text=row.text, label=row.label, priority=2, correction=True
    )


def read_rows(path: Path, limit: int, seed: int) -> list[TrainingRow]:
    """Shuffled rows of a JSON Lines file."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    random.Random(seed).shuffle(records)
    return [
        TrainingRow(example_id=UUID(int=number), task="label", text=record["text"], label=str(record["label"]))
        for number, record in enumerate(records[:limit])
    ]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor(), "cores": os.cpu_count(), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "cuda": torch.cuda.is_available(), "load": os.getloadavg()[0],
    }  # fmt: skip


def show(title: str, figures: dict[str, Any]) -> None:
    """One table as text."""
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:<30} {value:.4g}" if isinstance(value, float) else f"  {name:<30} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--past", type=int, nargs="*", default=[200, 1000])
    parser.add_argument("--holdout", type=int, default=1000)
    parser.add_argument("--corrections", type=int, default=30)
    parser.add_argument("--batch-rows", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5, help="of EWC beside plain")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the trainer")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = read_rows(chosen.data, 3400, chosen.seed)
    settings = {name: json.loads(value) for name, value in (item.split("=") for item in chosen.set)}
    report: dict[str, Any] = {
        "machine": machine(),
        "file": chosen.data.name,
        "labels": len(Counter(row.label for row in rows)),
    }
    show("machine", report["machine"])
    with tempfile.TemporaryDirectory() as name:
        tools = Workbench(bases=LocalBaseStore(folder=Path(name) / "bases"), embeddings=MemoryEmbeddings(50_000))
        for past in chosen.past:
            report[str(past)] = run(chosen, rows, past, EwcText(**settings), tools, Path(name))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def run(
    chosen: argparse.Namespace, rows: list[TrainingRow], past: int, trainer: EwcText, tools: Workbench, folder: Path
) -> dict[str, Any]:
    """All tables for a champion of ``past`` rows."""
    cut = chosen.holdout
    bench = Bench(
        trainer=trainer, bench=tools, folder=folder, labels=tuple(sorted({str(row.label) for row in rows})),
        holdout=tuple(rows[:cut]), past=tuple(rows[cut : cut + past]), later=tuple(rows[cut + past : cut + past + 1000]),
    )  # fmt: skip
    champion = bench.fit(bench.past, None)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "corrections, each alone": lambda: corrections(bench, champion, chosen.corrections),
        "corrections, one after another": lambda: sequence(bench, champion, chosen.corrections),
        "threshold updates": lambda: thresholds(bench, champion, 50),
        "EWC beside plain fine-tuning": lambda: ewc_time(bench, champion, chosen.rounds),
        "batch update": lambda: batch_update(bench, champion, chosen.batch_rows),
    }
    found = {}
    for title, part in parts.items():
        found[title] = part()
        show(f"{title} (champion of {past} rows, {chosen.data.name})", found[title])
    return found


if __name__ == "__main__":
    main()
