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
_MEASURED = 4  # one step in so many says how large the penalty is


@dataclass(frozen=True, kw_only=True, eq=False)
class _Anchor:
    """EWC's penalty ``1/2 lambda sum F (w - w*)^2`` around the champion: its gradient and its size.

    Works in one room of the largest parameter's size, which stays in the processor's cache, and reads the champion's values
    where they are loaded anyway: no copy and no allocation by step.
    """

    parameters: Sequence[torch.nn.Parameter]
    champion: Sequence[torch.Tensor]  # w*, in the order of the parameters
    fisher: Sequence[torch.Tensor]  # F, likewise; empty without a penalty
    penalty: float  # lambda

    @property
    def holds(self) -> bool:
        """Whether there is anything to hold: plain fine-tuning pays for none of it."""
        return bool(self.penalty and self.fisher)

    @torch.no_grad()
    def pull(self, *, apply: bool, measure: bool) -> float:
        """Add the penalty's gradient to what the backward pass left (``apply``), and say how large it is (``measure``, else 0)."""
        if not self.holds:
            return 0.0
        size = max(parameter.numel() for parameter in self.parameters)
        away_room, force_room = (torch.empty(size, device=self.fisher[0].device) for _ in range(2))
        total = 0.0
        for parameter, champion, fisher in zip(self.parameters, self.champion, self.fisher, strict=True):
            away = away_room[: parameter.numel()].view_as(parameter)
            torch.sub(parameter, champion, out=away)
            if apply and parameter.grad is not None:
                parameter.grad.addcmul_(fisher, away, value=self.penalty)
            if measure:
                force = force_room[: parameter.numel()].view_as(parameter)
                torch.mul(fisher, away, out=force)
                total += float(torch.dot(force.flatten(), away.flatten()))
        return 0.5 * self.penalty * total


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
    anchor, fisher_rows = learner.anchor(old_texts)
    fisher_done = perf_counter()
    losses, penalties = learner.epochs(texts, targets, anchor)
    steps_done = perf_counter()

    copy_files(encoder.folder, out, weights=False)
    state = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in model.state_dict().items()}
    save_file(state, str(out / "model.safetensors"), metadata={"format": "pt"})
    return Pass(
        losses=tuple(losses), penalties=tuple(penalties), fisher_mean=_mean(anchor.fisher), fisher_rows=fisher_rows,
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

    def anchor(self, texts: Sequence[str]) -> tuple[_Anchor, int]:
        """The champion with its diagonal Fisher over at most ``plan.fisher_rows`` texts chosen by the seed, and how many those were.

        Squares the summed gradient of a few rows at a time. With labels drawn from the model's own answers each row's
        gradient has mean zero and rows are independent, so the mixed terms vanish in expectation: the estimate has no
        bias, and costs a fraction of a backward pass for each row.
        """
        wanted = self.plan.fisher_rows if self.plan.penalty else 0
        chosen = np.random.default_rng(self.plan.seed).permutation(len(texts))[:wanted]
        tokens = self.encoder.tokens([texts[row] for row in chosen], self.plan.max_tokens) if len(chosen) else []
        draw = torch.Generator().manual_seed(self.plan.seed)
        free = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        sums: dict[str, torch.Tensor] = {}
        for width, rows in _batches(tokens, _FISHER_STEP):
            scores = self.scores([tokens[row] for row in rows], width)
            answer = _draw(scores.detach().cpu(), draw).to(self.encoder.device)
            self.model.zero_grad(set_to_none=True)
            _cross_entropy(scores, answer).sum().backward()  # type: ignore[no-untyped-call]
            for name, parameter in free.items():
                if parameter.grad is None:
                    continue
                if name in sums:
                    sums[name].addcmul_(parameter.grad, parameter.grad)
                else:
                    sums[name] = parameter.grad.square_()
        self.head.grad = None
        self.model.zero_grad(set_to_none=True)
        for total in sums.values():
            total.div_(len(tokens))
        # a parameter that no answer depends on (a pooler beside the mean) never moves: nothing of it is to be held
        held = list(sums)
        champion = dict(self.encoder.model.named_parameters())
        return _Anchor(
            parameters=[free[name] for name in held], champion=[champion[name].detach() for name in held],
            fisher=[sums[name] for name in held], penalty=self.plan.penalty,
        ), len(tokens)  # fmt: skip

    def epochs(self, texts: Sequence[str], targets: Floats, anchor: _Anchor) -> tuple[list[float], list[float]]:
        """AdamW over batches of like length in an order drawn from the seed; returns losses and measured penalties."""
        plan = self.plan
        tokens = self.encoder.tokens(texts, plan.max_tokens)
        wanted = torch.tensor(targets, dtype=torch.float32, device=self.encoder.device)
        groups = [
            {"params": [p for p in self.model.parameters() if p.requires_grad], "lr": plan.encoder_lr},
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
                due = len(losses) % _MEASURED == _MEASURED - 1
                size = anchor.pull(apply=True, measure=due) if losses else 0.0  # the first step begins at the champion
                if due:
                    penalties.append(size)
                optimiser.step()
                losses.append(float(loss.detach()))
        penalties.append(anchor.pull(apply=False, measure=True))
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


def _mean(fisher: Sequence[torch.Tensor]) -> float:
    """Mean over all that is held; 0 for nothing."""
    count = sum(part.numel() for part in fisher)
    return sum(float(part.sum(dtype=torch.float64)) for part in fisher) / max(1, count)


def _draw(scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One answer per row from the model's own probabilities, as a target."""
    if scores.shape[1] == 1:
        return torch.bernoulli(torch.sigmoid(scores), generator=generator)
    answer = torch.multinomial(torch.softmax(scores, dim=1), 1, generator=generator)
    return torch.zeros_like(scores).scatter_(1, answer, 1.0)
