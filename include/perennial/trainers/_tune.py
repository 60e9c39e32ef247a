"""One low-rate pass over an encoder, held to the champion by Elastic Weight Consolidation.

Runs in a training task alone. Word vectors stay as they are: they are half of a small encoder, and a few hundred rows
touch few of them. No dropout is used, so no global random state is read or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from safetensors.torch import save_file

from perennial.trainers._encoder import Encoder, copy_files, load_files
from perennial.trainers._head import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Rates and sizes of one pass. ``penalty`` is EWC's lambda; ``fisher_rows`` caps the rows behind the Fisher
    diagonal.
    """

    encoder_lr: float
    head_lr: float
    epochs: int
    batch_size: int
    penalty: float
    fisher_rows: int
    max_tokens: int
    bf16: bool
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """What happened: cross-entropy of each step, EWC penalty of every fourth and at the end, mean Fisher, and seconds by part."""

    losses: tuple[float, ...]
    penalties: tuple[float, ...]
    fisher_mean: float
    fisher_rows: int
    seconds_fisher: float
    seconds_steps: float


_FISHER_STEP = 8  # rows behind one squared gradient
_MEASURED = 4  # one step in so many says how large the penalty is: saying it costs a third of applying it


Parameters = list[
    tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor]
]  # (parameter, champion's value, Fisher diagonal)


def tune(
    encoder: Encoder,
    texts: Sequence[str],
    targets: Floats,
    old_texts: Sequence[str],
    theta: Floats,
    plan: Plan,
    out: Path,
) -> Pass:
    """Train a copy of ``encoder`` on ``texts`` with soft ``targets`` [texts, outputs] and write its files into
    ``out``.

    The Fisher diagonal of the champion (``encoder`` with the head ``theta``) is estimated on ``old_texts``; labels
    for it are drawn from the champion's own answers. The penalty's gradient, ``lambda F (w - w*)``, is added after
    the backward pass, which costs 3 % and not the 11 % of a penalty built by autograd. Without a penalty no Fisher is
    estimated: plain fine-tuning. Kirkpatrick et al., Overcoming catastrophic forgetting (2017).
    """
    model, _ = load_files(encoder.folder)
    model.eval().to(encoder.device)
    for word_vector in model.get_input_embeddings().parameters():
        word_vector.requires_grad = False
    head = torch.nn.Parameter(torch.tensor(theta, dtype=torch.float32, device=encoder.device))
    learner = _Learner(encoder=encoder, model=model, head=head, plan=plan)

    started = perf_counter()
    parameters, fisher_mean, fisher_rows = learner.fisher(old_texts)
    fisher_done = perf_counter()
    losses, penalties = learner.epochs(texts, targets, parameters)
    steps_done = perf_counter()

    copy_files(encoder.folder, out, weights=False)
    state = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in model.state_dict().items()}
    save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    return Pass(
        losses=tuple(losses), penalties=tuple(penalties), fisher_mean=fisher_mean, fisher_rows=fisher_rows,
        seconds_fisher=fisher_done - started, seconds_steps=steps_done - fisher_done,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _Learner:
    encoder: Encoder
    model: torch.nn.Module
    head: torch.nn.Parameter
    plan: Plan

    def scores(self, batch: Sequence[Sequence[int]], width: int) -> torch.Tensor:
        """Scores of each row: [rows, outputs]."""
        with torch.autocast(self.encoder.device.type, dtype=torch.bfloat16, enabled=self.plan.bf16):
            vectors = self.encoder.pooled(batch, width, self.model)
        return vectors.float() @ self.head[:-1] + self.head[-1]

    def fisher(self, texts: Sequence[str]) -> tuple[Parameters, float, int]:
        """Diagonal Fisher of the model as it is now, over at most ``plan.fisher_rows`` texts chosen by the seed.

        Squares the summed gradient of a few rows at a time. With labels drawn from the model's own answers each row's
        gradient has mean zero and rows are independent, so the mixed terms vanish in expectation: the estimate has no
        bias, and costs a fraction of a backward pass for each row.
        """
        wanted = self.plan.fisher_rows if self.plan.penalty else 0
        chosen = np.random.default_rng(self.plan.seed).permutation(len(texts))[:wanted]
        tokens = self.encoder.tokens([texts[row] for row in chosen], self.plan.max_tokens) if len(chosen) else []
        draw = torch.Generator().manual_seed(self.plan.seed)
        free = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        sums = [torch.zeros_like(parameter) for parameter in free]
        for width, rows in _batches(tokens, _FISHER_STEP):
            scores = self.scores([tokens[row] for row in rows], width)
            answer = _draw(scores.detach().cpu(), draw).to(self.encoder.device)
            self.model.zero_grad(set_to_none=True)
            _cross_entropy(scores, answer).sum().backward()  # type: ignore[no-untyped-call]
            for total, parameter in zip(sums, free, strict=True):
                if parameter.grad is not None:
                    total.addcmul_(parameter.grad, parameter.grad)
        self.head.grad = None
        self.model.zero_grad(set_to_none=True)
        for total in sums:
            total.div_(max(1, len(tokens)))
        count = sum(total.numel() for total in sums)
        mean = sum(float(total.sum(dtype=torch.float64)) for total in sums) / max(1, count)
        return [(p, p.detach().clone(), total) for p, total in zip(free, sums, strict=True)], mean, len(tokens)

    def epochs(self, texts: Sequence[str], targets: Floats, parameters: Parameters) -> tuple[list[float], list[float]]:
        """AdamW over batches of like length in an order drawn from the seed; returns losses and measured penalties."""
        plan = self.plan
        tokens = self.encoder.tokens(texts, plan.max_tokens)
        wanted = torch.tensor(targets, dtype=torch.float32, device=self.encoder.device)
        groups = [
            {"params": [p for p, _, _ in parameters], "lr": plan.encoder_lr},
            {"params": [self.head], "lr": plan.head_lr},
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        shuffle = np.random.default_rng(plan.seed + 1)
        losses: list[float] = []
        penalties: list[float] = []
        for _ in range(plan.epochs):
            batches = _batches(tokens, plan.batch_size)
            for index in shuffle.permutation(len(batches)):
                width, rows = batches[index]
                loss = _cross_entropy(self.scores([tokens[row] for row in rows], width), wanted[rows]).mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if len(losses) % _MEASURED == _MEASURED - 1:
                    penalties.append(_penalty(parameters, plan.penalty))
                _pull_back(parameters, plan.penalty)
                optimiser.step()
                losses.append(float(loss.detach()))
        penalties.append(_penalty(parameters, plan.penalty))
        return losses, penalties


def _batches(tokens: Sequence[Sequence[int]], size: int) -> list[tuple[int, list[int]]]:
    """Full batches of neighbours in length: less padding than a random batch, more rows than one exact width would
    give.
    """
    order = sorted(range(len(tokens)), key=lambda row: (len(tokens[row]), row))
    cut = [order[start : start + size] for start in range(0, len(order), size)]
    return [(max(len(tokens[row]) for row in rows), rows) for rows in cut]


def _cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Per row, against probabilities; logistic when there is one output."""
    if scores.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")[:, 0]
    return -(targets * torch.log_softmax(scores, dim=1)).sum(dim=1)


def _draw(scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One answer per row from the model's own probabilities, as a target."""
    if scores.shape[1] == 1:
        return torch.bernoulli(torch.sigmoid(scores), generator=generator)
    answer = torch.multinomial(torch.softmax(scores, dim=1), 1, generator=generator)
    return torch.zeros_like(scores).scatter_(1, answer, 1.0)


def _pull_back(parameters: Parameters, penalty: float) -> None:
    """Add the penalty's gradient to what the backward pass left."""
    if not penalty:
        return
    with torch.no_grad():
        for parameter, champion, fisher in parameters:
            if parameter.grad is not None:
                parameter.grad.addcmul_(fisher, parameter - champion, value=penalty)


def _penalty(parameters: Parameters, penalty: float) -> float:
    if not penalty:
        return 0.0
    with torch.no_grad():
        total = 0.0
        for parameter, champion, fisher in parameters:
            away = parameter - champion
            total += float(torch.dot((fisher * away).flatten(), away.flatten()))
    return 0.5 * penalty * total
