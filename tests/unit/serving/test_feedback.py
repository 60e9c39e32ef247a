"""Outcomes join their answers, teach what was wrong, and may be repeated."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from perennial.domain.words import Source
from perennial.errors import StoreUnavailable
from perennial.guard.said import said_json
from perennial.ingest.digests import share
from perennial.serving.feedback import OutcomeResult, Outcomes, Told, digest_of
from tests.unit.serving.world import Fixed, World


def _tell(world: World, *pairs: tuple[Any, Any]) -> list[Told]:
    outcomes = Outcomes(world.store, world.recorder, world.sink, world.metrics)
    return outcomes.tell(pairs, world.gateway.task_of)


def _ask(world: World, task: str = "topic", text: str = "some text") -> str:
    return str(world.gateway.predict("scout", task, [text])[0].prediction_id)


@pytest.mark.req("J27", "J28", "J93")
@pytest.mark.parametrize(
    ("confidence", "actual", "correct", "importance"),
    [
        (0.95, "world", 0.0, 1.0),  # confidently wrong: kept, of any classification task
        (0.95, " SPORTS ", 1.0, None),  # right and sure: nothing to learn
        (0.30, "sports", 1.0, 0.3),  # right but unsure: kept
        (0.40, "sports", 1.0, None),  # 0.6 is not above 0.6
    ],
)
def test_what_comes_back_of_a_classification(
    world: World, confidence: float, actual: str, correct: float, importance: float | None
) -> None:
    world.champion("1.0.0", topic=Fixed("sports", confidence))
    identity = _ask(world)
    (told,) = _tell(world, (identity, actual))
    assert (told.result, told.correct, told.example) == (OutcomeResult.ADDED, correct, importance is not None)
    labelled = [example for example in world.sink.examples.values() if example.expected_output is not None]
    assert len(labelled) == (1 if importance is not None else 0)
    if importance is not None:
        (example,) = labelled
        assert example.importance == importance
        assert example.uncertainty == pytest.approx(1 - confidence)
        assert (example.expected_output, example.predicted_output, example.source) == (actual, "sports", Source.GATEWAY)
    assert world.rollouts.stats("scout", "1.0.0", since=None).correct_sum == correct


@pytest.mark.req("J28")
def test_inputs_of_the_holdouts_share_come_back_right_or_wrong(world: World) -> None:
    """Kept only where the model was wrong, the holdout would make every candidate look better than its champion."""
    for task in world.store.tasks:
        task["holdout_share"] = 0.25
    world.champion("1.0.0", topic=Fixed("sports", 0.95))
    texts = [f"article {number}" for number in range(400)]
    told = _tell(world, *((_ask(world, text=text), "sports") for text in texts))
    sampled = {text for text, one in zip(texts, told, strict=True) if one.example}
    assert sampled == {text for text in texts if share(digest_of("scout", "topic", text)) < 0.25}
    assert 70 < len(sampled) < 130
    assert {example.source for example in world.sink.examples.values()} == {Source.SAMPLE}


@pytest.mark.req("J27", "K40")
@pytest.mark.parametrize(
    ("actual", "kept"),
    [
        ("Parkinson", "Parkinson"),  # declared, though it reads as a name
        (" parkinson", " parkinson"),
        ("Anna Parkinson", "[PERSON]"),
    ],
)
def test_a_declared_label_that_reads_as_a_name_stays_in_the_outcomes(world: World, actual: str, kept: str) -> None:
    labels = {"topic": ["Migraine", "Parkinson"]}
    world.store.tasks = [{**task, "labels": labels.get(task["task"])} for task in world.store.tasks]
    world.champion("1.0.0", topic=Fixed("Migraine", 0.95))
    outcomes = Outcomes(world.store, world.recorder, world.sink, world.metrics, said_json)
    (told,) = outcomes.tell([(_ask(world), actual)], world.gateway.task_of)
    assert told.correct == 0.0
    assert list(world.rollouts.slices("scout", "1.0.0", since=None)) == [f"topic: {kept}"]


def test_a_score_is_judged_by_its_distance(world: World) -> None:
    world.champion("1.0.0", quality=Fixed(0.9), topic=Fixed("sports"))
    near, far = _ask(world, "quality", "a"), _ask(world, "quality", "b")
    told = _tell(world, (near, 0.8), (far, 0.1))
    assert [item.correct for item in told] == [pytest.approx(0.9), pytest.approx(0.2)]
    assert [item.example for item in told] == [False, True]


@pytest.mark.req("D10")
def test_a_repeat_adds_nothing_and_a_change_replaces(world: World) -> None:
    world.champion("1.0.0")
    identity = _ask(world)
    assert [told.result for told in _tell(world, (identity, "world"), (identity, "world"))] == [
        OutcomeResult.ADDED, OutcomeResult.DUPLICATE
    ]  # fmt: skip
    assert len(world.sink.examples) == 1
    assert _tell(world, (identity, "sports"))[0].result is OutcomeResult.ADDED
    stats = world.rollouts.stats("scout", "1.0.0", since=None)
    assert (stats.outcomes, stats.correct_sum) == (1, 1.0)


@pytest.mark.req("D10", "J27")
def test_a_value_that_is_replaced_teaches_no_more(world: World) -> None:
    world.champion("1.0.0", topic=Fixed("world"))
    identity = _ask(world)
    labels = lambda: [example.expected_output for example in world.sink.waiting]  # noqa: E731
    for actual, left in (
        ("sports", ["sports"]),
        ("culture", ["culture"]),
        ("sports", ["sports"]),
        ("world", []),  # the model was right: nothing to learn, and nothing wrong either
        ("sports", ["sports"]),
    ):
        assert _tell(world, (identity, actual))[0].result is OutcomeResult.ADDED
        assert labels() == left
    assert _tell(world, (identity, "sports"))[0].result is OutcomeResult.DUPLICATE
    assert labels() == ["sports"]


@pytest.mark.req("D10", "J27")
def test_of_several_values_in_one_call_the_last_teaches(world: World) -> None:
    world.champion("1.0.0", topic=Fixed("world"))
    identity = _ask(world)
    told = _tell(world, (identity, "sports"), (identity, "culture"))
    assert [(one.result, one.example) for one in told] == [(OutcomeResult.ADDED, False), (OutcomeResult.ADDED, True)]
    assert [example.expected_output for example in world.sink.examples.values()] == ["culture"]


@pytest.mark.req("D10")
@pytest.mark.parametrize("lost", ["the sink at first", "the store", "the sink at last"])
def test_a_replacement_that_broke_off_is_made_up_by_a_repeat(world: World, lost: str) -> None:
    world.champion("1.0.0", topic=Fixed("world"))
    identity = _ask(world)
    _tell(world, (identity, "sports"))
    add_many, tell = world.sink.add_many, world.store.tell

    def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    world.sink.away = lost == "the sink at first"
    world.sink.add_many = away if lost == "the sink at last" else add_many  # type: ignore[method-assign]
    world.store.tell = away if lost == "the store" else tell  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        _tell(world, (identity, "culture"))
    world.sink.away, world.sink.add_many, world.store.tell = False, add_many, tell  # type: ignore[method-assign]
    _tell(world, (identity, "culture"))
    assert [example.expected_output for example in world.sink.waiting] == ["culture"]
    assert [outcome.actual for _, outcome in world.rollouts.outcomes.values()] == ["culture"]


def test_a_value_that_was_cleaned_is_known_again(world: World) -> None:
    world.champion("1.0.0", topic=Fixed("world"))
    identity = _ask(world)
    outcomes = Outcomes(world.store, world.recorder, world.sink, world.metrics, lambda _: "[removed]")
    outcomes.tell([(identity, "Ana Petrova")], world.gateway.task_of)
    outcomes.tell([(identity, "world")], world.gateway.task_of)
    assert not world.sink.waiting


def test_an_outcome_finds_answers_of_another_process(world: World) -> None:
    world.champion("1.0.0")
    identity = _ask(world)
    world.recorder.flush()
    world.recorder._remembered.clear()
    assert _tell(world, (identity, "world"))[0] == Told(result=OutcomeResult.ADDED, correct=0.0, example=True)


@pytest.mark.parametrize(
    ("identity", "actual", "field"),
    [(str(UUID(int=7, version=4)), "x", "prediction_id"), ("7", "x", "prediction_id"), (None, "x", "prediction_id"),
     (7, "x", "prediction_id"), ("known", None, "actual"), ("known", float("nan"), "actual"),
     ("known", "a\0b", "actual"), ("known", "\ud800", "actual"), ("known", "", "actual")],
)  # fmt: skip
def test_unusable_outcomes_name_the_field_and_spoil_no_other(
    world: World, identity: Any, actual: Any, field: str
) -> None:
    world.champion("1.0.0")
    known, good = _ask(world, text="a"), _ask(world, text="b")
    told = _tell(world, (known if identity == "known" else identity, actual), (good, "sports"))
    assert (told[0].result, told[0].field) == (OutcomeResult.REJECTED, field)
    assert told[1].result is OutcomeResult.ADDED


def test_a_score_needs_a_score(world: World) -> None:
    world.champion("1.0.0")
    identity = _ask(world, "quality")
    for actual in ("high", 1.5, True):
        assert _tell(world, (identity, actual))[0].field == "actual"


def test_with_the_store_away_nothing_is_acknowledged_and_a_repeat_makes_up(world: World) -> None:
    world.champion("1.0.0")
    identity = _ask(world)
    world.store.away = True
    with pytest.raises(StoreUnavailable):
        _tell(world, (identity, "world"))
    world.store.away, world.sink.away = False, True
    with pytest.raises(StoreUnavailable):  # the outcome is written, its example is not
        _tell(world, (identity, "world"))
    world.sink.away = False
    _tell(world, (identity, "world"))
    assert len(world.sink.examples) == 1
    assert world.rollouts.stats("scout", "1.0.0", since=None).outcomes == 1
