"""Corrections, one at a time, through the real flows: is each learned, and what do all of them together cost?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from perennial.domain.example import Example
from perennial.domain.model import Predictor
from perennial.domain.words import Priority, Reason, Source
from perennial.flows import rollout, train
from perennial.ingest.digests import input_digest, plain_digest, share
from tests.acceptance.world import World

AGENT, TASK = "scout", "news_classification"
_ATTEMPTS = 3  # a refused correction is tried once more; a third look finds nothing to do
Truth = tuple[str, str]  # text and right label


@dataclass(frozen=True, kw_only=True)
class Step:
    """One correction: what became of it, how long it took, and what the promoted model answers now."""

    promoted: bool
    right: bool  # the model that serves now answers the text, as it was sent, with the corrected label
    unlearned: int  # earlier corrections that were right before this one and are wrong now
    reason: str  # why it was held; empty when it was promoted
    seconds: float


@dataclass(kw_only=True)
class Sticking:
    """The whole run: accuracies on texts that no part of the system has seen, before and after."""

    rows: int
    before: float
    after: float = 0.0
    right_at_end: int = 0
    steps: list[Step] = field(default_factory=list)

    @property
    def right(self) -> int:
        return sum(step.right for step in self.steps)

    @property
    def unlearned(self) -> int:
        return sum(step.unlearned for step in self.steps)


def correct_one_by_one(
    world: World, *, start: Sequence[Truth], later: Sequence[Truth], test: Sequence[Truth], count: int,
    say: Callable[[Step], None] = lambda step: None,
) -> Sticking:  # fmt: skip
    """Train a champion from ``start``; then ``count`` times correct the next text of ``later`` that the champion answers wrong.

    Each correction goes admit, claim, fast_lane, register, settle, promote. Nothing of ``test`` is ever shown to the system.
    """
    world.ports.buffer.add_many([_example(*truth) for truth in start])
    verdict, settled = world.train_once()
    assert settled["version"], verdict["summary"]
    world.promote()
    rows = world.ports.jobs.of_version(AGENT, settled["version"])
    found = Sticking(rows=rows.example_count if rows else 0, before=_accuracy(world, test))
    waiting, done = iter(later), []
    for _ in range(count):
        truth = _wrongly_answered(world, waiting)
        found.steps.append(_correct(world, truth, done))
        done.append(truth)
        say(found.steps[-1])
    found.after = _accuracy(world, test)
    found.right_at_end = sum(_right(_champion(world), done))
    return found


def training_share(truths: Sequence[Truth], holdout: float, wanted: int) -> Sequence[Truth]:
    """The first of ``truths`` among which ``wanted`` are for training; the others of them fall into the holdout."""
    taken = 0
    for place, (text, _) in enumerate(truths):
        taken += share(input_digest(AGENT, TASK, plain_digest(text))) >= holdout
        if taken == wanted:
            return truths[: place + 1]
    raise ValueError(f"{len(truths)} rows hold only {taken} for training, {wanted} are wanted")


def _correct(world: World, truth: Truth, done: Sequence[Truth]) -> Step:
    before = _right(_champion(world), done)
    identity = uuid4()
    began = time.perf_counter()
    world.ports.buffer.add(_example(*truth, identity=identity, priority=Priority.HIGH, source=Source.CORRECTION))
    reason = ""
    for _ in range(_ATTEMPTS):
        ref = world.claim(reason=Reason.CORRECTION)
        if ref is None:
            break
        verdict = train.fast_lane(world.ports, ref)
        reason = "" if verdict["action"] == "pass" else verdict["summary"]
        world.release(ref, verdict)
        if verdict["action"] == "pass":
            world.promote()
            break
    seconds = time.perf_counter() - began
    champion = _champion(world)
    after = _right(champion, done)
    return Step(
        promoted=_trained(world, identity), right=_right(champion, [truth])[0], reason=reason, seconds=seconds,
        unlearned=sum(was and not now for was, now in zip(before, after, strict=True)),
    )  # fmt: skip


def _trained(world: World, identity: UUID) -> bool:
    row = world.ports.buffer.example(identity)
    return row is not None and row.state == "trained"


def _wrongly_answered(world: World, waiting: Iterator[Truth]) -> Truth:
    champion = _champion(world)
    return next(truth for truth in waiting if not _right(champion, [truth])[0])


def _champion(world: World) -> Predictor:
    version = world.ports.ledger.champion(AGENT)
    assert version is not None
    return rollout.predictors(world.ports, world.ports.fleet().agent(AGENT), version)[TASK]


def _right(model: Predictor, truths: Sequence[Truth]) -> list[bool]:
    if not truths:
        return []
    answers = model.predict([text for text, _ in truths])
    return [answer.output == label for answer, (_, label) in zip(answers, truths, strict=True)]


def _accuracy(world: World, test: Sequence[Truth]) -> float:
    return sum(_right(_champion(world), test)) / len(test)


def _example(
    text: str, label: str, *, identity: UUID | None = None, priority: Priority = Priority.LOW,
    source: Source = Source.EXAMPLE,
) -> Example:  # fmt: skip
    return Example(
        agent=AGENT, task=TASK, input_text=text, expected_output=label, uncertainty=0.5, priority=priority, source=source,
        source_id="sticking", example_id=identity or uuid4(), importance=1.0 if source is Source.CORRECTION else 0.5,
    )  # fmt: skip
