"""``command.v1``: a script of your own, in any language, under the same gates, signatures and rollouts as every other trainer.

What it learns: whatever the script does with short texts. When not to use it: when a fixed method does, since a script is a
process of its own for every loaded version, and nobody but you knows what it needs.

The script is run in two ways, always without a shell, in a process group of its own, from a private copy of its text:

- ``script --data FILE [--base FOLDER] --out FOLDER --seed N`` trains. ``FILE`` holds one JSON object a line: ``text`` (redacted),
  ``label``, ``role`` (``new`` or ``replay``), ``id``, ``priority``, ``correction``. ``task.json`` beside it names ``agent``, ``task``,
  ``kind``, ``labels`` and ``mode``. ``--base`` is what the script left when it made the champion, absent at the first time.
  ``--out`` is empty; ``.json`` and ``.safetensors`` files may be left there, and nothing else. Exit 0 is success.
- ``script --load FOLDER --predict`` answers. It prints ``{"protocol": 1}`` when it is ready, then reads lines
  ``{"texts": [...]}`` and prints for each a line ``{"answers": [{"output": ..., "confidence": 0.9, "scores": {...}}, ...]}``, until
  its input ends. ``output`` is a label of the task, or a number between 0 and 1; ``scores`` may be left out.

The text of the script is copied into the component, and its digest into the record that is signed: a version answers later with
the script that made it, whatever became of the file. It runs only where PERENNIAL_RUN_SCRIPTS allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from perennial.domain.model import Artefact, Predictor, TaskBatch, Workbench


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Settings, all of them in the manifest. None of those about programs can be changed by a run's own parameters."""

    key: ClassVar[str] = "command.v1"
    PINNED: ClassVar[frozenset[str]] = frozenset({"script", "interpreter", "environment", "pinned"})

    script: str = (
        "word_counts.py"  # a path, relative to the fleet folder; the default comes with Perennial, as an example
    )
    interpreter: str = ""  # the program that runs it; empty: the Python of this process
    environment: str = ""  # names of variables that it may see beside PATH and the like, separated by commas
    train_seconds: float = 2400.0  # longest training
    start_seconds: float = 120.0  # until it is ready to answer
    answer_seconds: float = 30.0  # longest time for 64 texts
    most_megabytes: int = 2048  # of what it leaves in --out
    pinned: str = ""  # digest of a script that was kept; set in records, so that a version can be made again

    def __post_init__(self) -> None:
        for name in ("train_seconds", "start_seconds", "answer_seconds", "most_megabytes"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"command: {name} is {getattr(self, name)}, and must be above 0")
        if not self.script.strip():
            raise ValueError("command: script is empty; name a file, relative to the fleet folder")

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that the script may see."""
        return tuple(name.strip() for name in self.environment.split(",") if name.strip())

    def problems(self) -> tuple[str, ...]:
        """What `perennial agent check` says about the script; empty when it can be read."""
        from perennial.trainers import _script

        told = "" if self.pinned else _script.problem(self.script)
        return (told,) if told else ()

    def fit(self, batch: TaskBatch, start: Path | None, out: Path, *, seed: int, bench: Workbench) -> Artefact:
        """Run the script on the rows of ``batch``, into the empty folder ``out``; runs in a training task.

        Writes component.json, script.json and the script's own files below ``model/``, and asks the new model once. Raises
        EmptyBatch, UnknownLabel, ScriptFailed (it failed, hung, or cannot answer), NotConfigured where scripts may not run, or
        TrainingError for files that a version may not hold. Neither ``batch`` nor ``start`` is changed. Whether equal inputs give
        equal bytes is the script's to keep.
        """
        from perennial.trainers import _command_run
        from perennial.trainers._batch import check_batch, check_empty

        check_batch(batch)
        check_empty(out)
        _check_allowed(bench)
        return _command_run.fit(self, batch, start, out, seed=seed, bench=bench)

    def load(self, path: Path, bench: Workbench) -> Predictor:
        """Load a component, whose own script will answer; UntrustedBundle when its files do not hold together, NotConfigured where
        scripts may not run. The predictor may be shared between threads.
        """
        from perennial.trainers import _command_run

        _check_allowed(bench)
        return _command_run.CommandPredictor(self, path)


def _check_allowed(bench: Workbench) -> None:
    from perennial.errors import NotConfigured

    if not bench.run_scripts:
        raise NotConfigured(
            "PERENNIAL_RUN_SCRIPTS",
            "an agent's own script runs only where this is true: on the workers that train it and the gateways that serve it",
        )


TRAINER = Command
