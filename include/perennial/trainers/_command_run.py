"""One training and one answering by the user's script: what it is given, what is taken from it, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from perennial.domain.model import Artefact, Prediction, TaskBatch, Workbench
from perennial.domain.words import TaskKind
from perennial.errors import ScriptFailed, TrainingError, UntrustedBundle
from perennial.registry.files import copy_file, digest_of_tree, listing
from perennial.trainers import _child, _script

if TYPE_CHECKING:
    from perennial.trainers.command import Command

PROTOCOL = 1
FORMAT = 1
MODEL = "model"
LONGEST_ANSWER = 16 << 20  # bytes of one line
AT_ONCE = 64  # texts in one line
_PROBES = 4
_LONGEST_PAUSE = 60.0  # seconds between new starts of what keeps failing


def fit(settings: Command, batch: TaskBatch, start: Path | None, out: Path, *, seed: int, bench: Workbench) -> Artefact:
    """See ``Command.fit``."""
    script = _script.kept(bench.bases.path(settings.pinned)) if settings.pinned else _script.read(settings.script)
    # below the folder of this training: what a killed one leaves, texts among it, goes with its job
    with tempfile.TemporaryDirectory(prefix=".perennial-script-", dir=out) as name:
        room = Path(name)
        base = _base(start, settings.key)
        made = _train(settings, script, batch, base, room, seed)
        pinned = _keep(script, room / "base-of-script", bench)
        for path in made:
            copy_file(room / "out" / path, out / MODEL / path)
    script.keep(out)
    record = {
        "format": FORMAT, "protocol": PROTOCOL,
        "trainer": {"key": settings.key, "settings": asdict(replace(settings, pinned=pinned))},
        "agent": batch.agent, "task": batch.task, "kind": batch.kind.value, "labels": list(batch.labels),
        # what reads the texts is the script, kept once by digest like any encoder
        "encoder": {"name": script.name, "digest": pinned, "tuned": False, "dimension": 0},
        "script": {"name": script.name, "sha256": script.digest}, "mode": batch.mode.value, "seed": seed,
        "rows": {"new": len(batch.new), "replay": len(batch.replay)},
        "started_from": digest_of_tree(base) if base is not None else "",
    }  # fmt: skip
    (out / "component.json").write_text(
        json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    with tempfile.TemporaryDirectory(prefix=".perennial-script-", dir=out) as name:
        predictor = CommandPredictor(settings, out, below=Path(name))
        try:  # what cannot answer is no model, and is said here and not by the evaluation
            predictor.predict([row.text for row in batch.new[:_PROBES]])
        finally:
            predictor.close()
    size = sum((out / MODEL / path).stat().st_size for path in made)
    return Artefact(
        path=out, task=batch.task, labels=batch.labels, metrics={"model_bytes": float(size)},
        details={"script": script.digest, "files": len(made)},
    )  # fmt: skip


def _base(start: Path | None, key: str) -> Path | None:
    """The champion's own files, when a script made them too."""
    if start is None:
        return None
    made_by = json.loads((start / "component.json").read_text(encoding="utf-8"))["trainer"]["key"]
    return start / MODEL if made_by == key else None


def _keep(script: _script.Script, folder: Path, bench: Workbench) -> str:
    folder.mkdir()
    script.keep(folder)
    return bench.bases.put(folder)


def _train(
    settings: Command, script: _script.Script, batch: TaskBatch, base: Path | None, room: Path, seed: int
) -> tuple[str, ...]:
    (room / "run").mkdir()
    program = script.place(room / "run")
    (room / "task.json").write_text(_task(batch), encoding="utf-8")
    with (room / "data.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(_rows(batch))
    (room / "out").mkdir()
    arguments = [settings.interpreter or sys.executable, str(program), "--data", str(room / "data.jsonl")]
    if base is not None:
        shutil.copytree(base, room / "base")  # a copy: the champion stays as it is, whatever the script does
        arguments += ["--base", str(room / "base")]
    arguments += ["--out", str(room / "out"), "--seed", str(seed)]
    _child.run(
        arguments, room=room / "run", variables=_child.environment(room / "run", settings.variables),
        seconds=settings.train_seconds,
    )  # fmt: skip
    return _made(room / "out", settings)


def _made(out: Path, settings: Command) -> tuple[str, ...]:
    if not any(out.iterdir()):
        raise TrainingError("the script left nothing in --out; write the model there, as .json and .safetensors files")
    try:
        found = listing(out)
    except UntrustedBundle as error:
        raise TrainingError(
            f"the script left in --out what no version may hold: {error} Write .json and .safetensors files, in at most one folder"
        ) from error
    size = sum((out / path).stat().st_size for path in found)
    if size > settings.most_megabytes << 20:
        raise TrainingError(
            f"the script left {size >> 20} MB in --out, more than most_megabytes allows ({settings.most_megabytes})"
        )
    if any(path.count("/") > 1 for path in found):
        raise TrainingError("the script nested folders two deep in --out; a file may lie in one folder there at most")
    return found


def _task(batch: TaskBatch) -> str:
    return json.dumps(
        {
            "agent": batch.agent,
            "task": batch.task,
            "kind": batch.kind.value,
            "labels": list(batch.labels),
            "mode": batch.mode.value,
        },
        ensure_ascii=False,
    )


def _rows(batch: TaskBatch) -> list[str]:
    return [
        json.dumps(
            {
                "id": str(row.example_id), "text": row.text, "label": row.label, "role": role, "priority": row.priority,
                "correction": row.correction,
            },
            ensure_ascii=True,  # some readers end a line at U+2028 and its like, which JSON lets stand
        ) + "\n"
        for role, rows in (("replay", batch.replay), ("new", batch.new))
        for row in rows
    ]  # fmt: skip


class CommandPredictor:
    """Asks a living child process of the component's own script; any number of threads may ask, one is answered at a time.

    The child is started by the first question, again after a crash or a fork, and with growing pauses when it keeps failing.
    """

    def __init__(self, settings: Command, component: Path, below: Path | None = None) -> None:
        record = _record(component)
        self._settings, self._kind = settings, TaskKind(record["kind"])
        self._labels = frozenset(record["labels"])
        script = _script.kept(component, record["script"]["sha256"])
        # a copy: the component's folder may go meanwhile
        self._room = tempfile.TemporaryDirectory(prefix="perennial-script-", dir=below)
        room = Path(self._room.name)
        (room / "run").mkdir()
        self._program = script.place(room / "run")
        for path in listing(component / MODEL):
            copy_file(component / MODEL / path, room / "model" / path)
        self._lock = threading.Lock()
        self._child: _child.Lines | None = None
        self._pid, self._failures, self._not_before = 0, 0, 0.0
        self._end: weakref.finalize[Any, CommandPredictor] | None = None

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer each text, in order; ScriptFailed when the script cannot, also not after one new start."""
        found: list[Prediction] = []
        with self._lock:
            for first in range(0, len(texts), AT_ONCE):
                found += self._asked(list(texts[first : first + AT_ONCE]))
        return found

    def close(self) -> None:
        """End the child; the next question starts a new one."""
        with self._lock:
            self._stop()

    def _asked(self, texts: list[str]) -> list[Prediction]:
        if time.monotonic() < self._not_before:
            raise ScriptFailed(
                "the script failed again and again and is left alone for a moment; roll back, or repair it and train"
            )
        while True:
            try:
                found = self._ask(texts)
            except ScriptFailed:
                self._stop()
                self._failures += 1
                if self._failures > 1:  # the one new start failed too, or it has been failing before
                    self._not_before = time.monotonic() + min(_LONGEST_PAUSE, 0.5 * 2.0 ** (self._failures - 2))
                    raise
            else:
                self._failures = 0
                return found

    def _ask(self, texts: list[str]) -> list[Prediction]:
        line = json.dumps({"texts": texts}, ensure_ascii=True).encode() + b"\n"
        return self._read(self._living().ask(line, self._settings.answer_seconds), len(texts))

    def _living(self) -> _child.Lines:
        if self._child is not None and self._pid == os.getpid():
            return self._child
        room = Path(self._room.name)
        arguments = [
            self._settings.interpreter or sys.executable, str(self._program), "--load", str(room / "model"), "--predict"
        ]  # fmt: skip
        variables = _child.environment(room / "run", self._settings.variables)
        child = _child.Lines(arguments, room=room / "run", variables=variables, longest=LONGEST_ANSWER)
        self._child, self._pid = child, os.getpid()
        self._end = weakref.finalize(self, _end, child, os.getpid())
        hello = _json(child.ask(b"", self._settings.start_seconds))
        if hello.get("protocol") != PROTOCOL:
            raise ScriptFailed(f'the script did not begin with the line {{"protocol": {PROTOCOL}}}')
        return child

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._child, self._end = None, None

    def _read(self, line: bytes, count: int) -> list[Prediction]:
        answers = _json(line).get("answers")
        if not isinstance(answers, list) or len(answers) != count:
            raise ScriptFailed(f'the script must answer {count} texts with {{"answers": [...]}} of as many')
        return [self._prediction(answer) for answer in answers]

    def _prediction(self, answer: Any) -> Prediction:
        if not isinstance(answer, dict):
            raise ScriptFailed('each answer must be an object with "output" and "confidence"')
        output, scores = answer.get("output"), answer.get("scores") or {}
        if self._kind is TaskKind.SCORE:
            if not _is_share(output):
                raise ScriptFailed("the output of a score task must be a number between 0 and 1")
            output = float(output)
        elif not isinstance(output, str) or output not in self._labels:
            raise ScriptFailed("the script answered with a label that the task does not have")
        confidence = answer.get("confidence", -1.0)
        if not _is_share(confidence) or not isinstance(scores, dict):
            raise ScriptFailed('"confidence" must be a number between 0 and 1, and "scores" an object of such numbers')
        if not all(label in self._labels and _is_share(value) for label, value in scores.items()):
            raise ScriptFailed('"scores" must hold labels of the task with numbers between 0 and 1')
        return Prediction(output=output, confidence=float(confidence), scores=scores)


def _end(child: _child.Lines, pid: int) -> None:
    if os.getpid() == pid:  # a fork has no right to its parent's child
        _child.kill(child.process)


def _record(component: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((component / "component.json").read_text(encoding="utf-8"))
        if record["format"] != FORMAT or record["protocol"] != PROTOCOL:
            raise ValueError("another format")
        TaskKind(record["kind"]), record["script"]["sha256"], record["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UntrustedBundle(
            "the component's record is not one of a script; restore the version, or roll back"
        ) from error
    return record


def _json(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ScriptFailed(
            "the script printed what is no JSON; print to stderr, and answers alone to stdout"
        ) from error
    if not isinstance(found, dict):
        raise ScriptFailed("the script printed what is no JSON object; print to stderr, and answers alone to stdout")
    return found


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0
