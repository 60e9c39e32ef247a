"""What production says comes back: unsure answers as unlabelled inputs, outcomes as labelled examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID, uuid5

from perennial.client.feedback import worth
from perennial.domain.example import Example
from perennial.domain.words import JSON, Source, TaskKind
from perennial.errors import InvalidExample
from perennial.ingest.checks import id_of, json_of
from perennial.ingest.digests import input_digest, plain_digest, share
from perennial.ingest.door import uncertainty_of
from perennial.rollout.agreement import agrees, correctness
from perennial.rollout.rows import Answered, Outcome
from perennial.serving.metrics import Metrics
from perennial.serving.recorder import ExampleSink, Recorder
from perennial.serving.store import Recorded, ServingStore, TaskInfo

TaskOf: TypeAlias = Callable[[str, str], TaskInfo]  # (agent, task) -> what is served under that name
_NAMESPACE = UUID("6f1f3a55-3d0c-4d53-9f57-0c8f4f6f2a11")


def unlabelled(item: Answered, text: str) -> tuple[bytes, Example] | None:
    """The input of an unsure answer as an example without a label, by its digest; None when the model was sure
    enough."""
    if item.confidence is None or item.error is not None:
        return None
    value = worth(TaskKind.CLASSIFICATION, item.output, None, uncertainty_of(item.confidence))
    if not value.kept:
        return None
    example = Example(
        agent=item.agent, task=item.task, input_text=text, expected_output=None, predicted_output=item.output,
        uncertainty=value.uncertainty, importance=value.importance, source=Source.GATEWAY, source_id="gateway",
    )  # fmt: skip
    return item.input_digest, example


def digest_of(agent: str, task: str, text: str) -> bytes:
    """The buffer's digest of an input."""
    return input_digest(agent, task, plain_digest(text))


class OutcomeResult(StrEnum):
    """What became of one outcome."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """The answer to one outcome. ``example``: whether a labelled example went to the buffer."""

    result: OutcomeResult
    correct: float | None = None
    example: bool = False
    field: str | None = None
    reason: str | None = None


def kept_as_it_is(value: JSON) -> JSON:
    """Nothing is taken out: for twins and trials that know their answers."""
    return value


class OutcomeSink(ExampleSink, Protocol):
    """The buffer's door, both ways."""

    def withdraw(self, ids: Collection[UUID], *, back: Collection[UUID] = ()) -> None:
        """Take examples back that are wrong by now, or let such (``back``) wait again; StoreUnavailable when nothing was done."""
        ...


class Outcomes:
    """Joins what was true to what was answered; durable when it returns, and safe to repeat."""

    def __init__(
        self, store: ServingStore, recorder: Recorder, sink: OutcomeSink | None, metrics: Metrics,
        clean: Callable[[JSON], JSON] = kept_as_it_is,
    ) -> None:  # fmt: skip
        """``clean``: what of a true answer may stand in the table of outcomes; the example goes through admission like any other."""
        self._store, self._recorder, self._sink, self._metrics = store, recorder, sink, metrics
        self._clean = clean

    def tell(self, pairs: Sequence[tuple[object, object]], task_of: TaskOf) -> list[Told]:
        """Write outcomes given as (prediction id, actual). Raises StoreUnavailable when not all could be written:
        repeat the call.

        ``task_of`` knows each task's kind and holdout share. An example keeps one id per prediction
        and value, so a repeat adds nothing twice; a value that replaces another takes its example back, unless it was trained on.
        """
        results: list[Told | None] = [None] * len(pairs)
        checked: dict[int, tuple[UUID, JSON]] = {}
        for index, (identity, actual) in enumerate(pairs):
            try:
                checked[index] = _checked(identity, actual)
            except InvalidExample as error:
                results[index] = _rejected(error)
        found = self._find({identity for identity, _ in checked.values()})
        examples: dict[int, Example] = {}
        outcomes: dict[int, Outcome] = {}
        for index, (identity, actual) in checked.items():
            item = found.get(identity)
            if item is None or item.answer.error is not None:
                unknown = InvalidExample("prediction_id", "is not known", "send the id that /v1/predict answered with")
                results[index] = _rejected(unknown)
                continue
            task = task_of(item.answer.agent, item.answer.task)
            if task.kind is TaskKind.SCORE and not _is_share(actual):
                wrong = InvalidExample("actual", "is not a number between 0 and 1", "send the true score")
                results[index] = _rejected(wrong)
                continue
            outcome = _outcome(item.answer, actual, task.kind)
            # the model's own answer or a label of its owner's, and no stranger's words
            known_answer = actual == item.answer.output or any(agrees(actual, label) for label in task.labels)
            outcomes[index] = outcome if known_answer else replace(outcome, actual=self._clean(actual))
            example = _labelled(item, actual, task, _example_id(identity, outcomes[index].actual))
            if example is not None and self._sink is not None:
                examples[index] = example
        examples = _lasting(outcomes, examples)
        news = self._write(list(outcomes.values()), list(examples.values()))
        for (index, outcome), new in zip(outcomes.items(), news, strict=True):
            word = OutcomeResult.ADDED if new else OutcomeResult.DUPLICATE
            results[index] = Told(result=word, correct=round(outcome.correct, 6), example=index in examples)
        done = [result for result in results if result is not None]
        for result in done:
            self._metrics.outcomes.labels(result.result.value).inc()
        return done

    def _write(self, outcomes: Sequence[Outcome], examples: Sequence[Example]) -> list[bool]:
        if self._sink is not None and outcomes:
            self._take_back(self._sink, {outcome.prediction_id: outcome.actual for outcome in outcomes})
        news = self._store.tell(outcomes)
        if self._sink is not None and examples:
            self._sink.add_many(examples)
        return news

    def _take_back(self, sink: OutcomeSink, final: Mapping[UUID, JSON]) -> None:
        """Before the new values are written, so that the repeat of a call that broke off still finds the old ones."""
        known = self._store.told(list(final))
        changed = [identity for identity, actual in final.items() if known.get(identity, actual) != actual]
        if changed:
            earlier = [_example_id(identity, known[identity]) for identity in changed]
            sink.withdraw(earlier, back=[_example_id(identity, final[identity]) for identity in changed])

    def _find(self, ids: set[UUID]) -> dict[UUID, Recorded]:
        near = {identity: item for identity in ids if (item := self._recorder.find(identity)) is not None}
        far = ids - near.keys()
        return {**near, **self._store.answered(sorted(far))} if far else near


def _outcome(answer: Answered, actual: JSON, kind: TaskKind) -> Outcome:
    return Outcome(
        prediction_id=answer.prediction_id, agent=answer.agent, task=answer.task, version=answer.version,
        arm=answer.arm, actual=actual, correct=correctness(kind, answer.output, actual),
    )  # fmt: skip


def _lasting(outcomes: Mapping[int, Outcome], examples: Mapping[int, Example]) -> dict[int, Example]:
    """Of several values for one answer the last teaches alone."""
    final = {outcome.prediction_id: outcome.actual for outcome in outcomes.values()}
    lasts = {index for index, outcome in outcomes.items() if outcome.actual == final[outcome.prediction_id]}
    return {index: example for index, example in examples.items() if index in lasts}


def _example_id(prediction_id: UUID, actual: JSON) -> UUID:
    """Of the value as it stands in the table of outcomes, so that it is found again when another value replaces it."""
    return uuid5(_NAMESPACE, f"{prediction_id} {json.dumps(actual, sort_keys=True)}")


def _labelled(item: Recorded, actual: JSON, task: TaskInfo, example_id: UUID) -> Example | None:
    """What teaches something, and of the inputs in the holdout's share everything: kept only where the model was wrong, they would
    make every candidate look better than its champion.
    """
    answer = item.answer
    value = worth(task.kind, answer.output, actual, uncertainty_of(answer.confidence or 0.0))
    if item.text is None:
        return None
    sampled = share(answer.input_digest) < task.holdout_share
    if not value.kept and not sampled:
        return None
    return Example(
        agent=answer.agent, task=answer.task, input_text=item.text, expected_output=actual,
        predicted_output=answer.output, uncertainty=value.uncertainty, importance=value.importance,
        source=Source.GATEWAY if value.kept else Source.SAMPLE, source_id="gateway",
        example_id=example_id,
    )  # fmt: skip


def _checked(identity: object, actual: object) -> tuple[UUID, JSON]:
    if identity is None or identity == "":
        raise InvalidExample("prediction_id", "is missing", "send the id that /v1/predict answered with")
    try:
        known = id_of(identity)
    except InvalidExample as error:
        raise InvalidExample("prediction_id", error.problem, "send the id that /v1/predict answered with") from error
    value = json_of(actual, "actual")
    if value is None:
        raise InvalidExample("actual", "is missing", "send what was true")
    return known, value


def _rejected(error: InvalidExample) -> Told:
    return Told(result=OutcomeResult.REJECTED, field=error.field, reason=str(error))


def _is_share(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
