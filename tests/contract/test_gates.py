"""Laws that every gate found by the catalogue meets."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from random import Random

import pytest

from perennial.domain.words import GateAction, Mode, Reason
from perennial.gates.catalogue import gates
from perennial.gates.gate import Gate, GateSettings
from perennial.gates.scores import Evaluation, RowScores, TaskScores
from tests.unit.gates.samples import evaluation, first, numbers, simulated, table, with_corrections, with_slices

GATES = gates()
SETTINGS = GateSettings(min_accuracy={"news": 0.75})
ORDER = {GateAction.PASS: 0, GateAction.APPROVE: 1, GateAction.HOLD: 2}
every_gate = pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)


def test_the_catalogue_finds_one_gate_per_file() -> None:
    assert {gate.name for gate in GATES} >= {
        "absolute", "bootstrap", "corrections", "holdout_size", "metrics", "non_inferiority", "slices", "superiority", "window",
    }  # fmt: skip


def _missing() -> Iterator[tuple[str, Evaluation]]:
    whole = table(200, both=170, gains=5, losses=5)
    yield "no task at all", evaluation()
    yield "candidate not measured", evaluation(replace(whole, candidate=None))
    yield "candidate measured on fewer rows", evaluation(replace(whole, candidate=whole.candidate[:-1]))  # type: ignore[index]
    yield "candidate not a number", evaluation(replace(whole, candidate=(float("nan"),) * 200))
    yield "champion measured on fewer rows", evaluation(replace(whole, champion=whole.champion[:-1]))  # type: ignore[index]
    yield "no rows", evaluation(table(0, both=0))
    yield "one of two tasks not measured", evaluation(whole, replace(numbers(200, 0.9, 0.9), candidate=None))


@every_gate
@pytest.mark.parametrize(("what", "broken"), list(_missing()), ids=[what for what, _ in _missing()])
def test_missing_input_holds(gate: Gate, what: str, broken: Evaluation) -> None:
    verdict = gate.evaluate(broken, replace(SETTINGS, min_accuracy={}))
    assert verdict.action is GateAction.HOLD, what
    assert verdict.reason


def _own_needs() -> Iterator[tuple[str, Evaluation]]:
    whole = table(200, both=170)
    yield "absolute", evaluation(replace(whole, task="other"))
    yield "bootstrap", evaluation(first(whole), champion=None)
    yield "corrections", evaluation(replace(whole, corrections=RowScores(ids=("c",), candidate=None)))
    yield "holdout_size", evaluation(replace(table(0, both=0)))
    yield "non_inferiority", evaluation(replace(whole, champion=None))
    yield "slices", evaluation(replace(whole, slices={}))
    yield "superiority", evaluation(whole, mode=None)
    yield "window", evaluation(replace(whole, reference=None))
    yield "metrics", evaluation(replace(whole, metrics={"champion": {"macro_f1": 0.9}}))


def test_each_gate_holds_when_its_own_input_is_missing() -> None:
    needs = dict(_own_needs())
    assert set(needs) == {gate.name for gate in GATES}, "a new gate states here what it cannot do without"
    for gate in GATES:
        settings = replace(SETTINGS, min_metrics={"news": {"macro_f1": 0.5}}) if gate.name == "metrics" else SETTINGS
        assert gate.evaluate(needs[gate.name], settings).action is GateAction.HOLD, gate.name


def _improved(draw: Random, scores: TaskScores) -> TaskScores:
    def better(values: tuple[float, ...] | None, share: float) -> tuple[float, ...]:
        return tuple(1.0 if draw.random() < share else value for value in values or ())

    share = draw.choice([0.02, 0.2, 0.7, 1.0])
    return replace(
        scores, candidate=better(scores.candidate, share),
        corrections=replace(scores.corrections, candidate=better(scores.corrections.candidate, share)),
        regression=replace(scores.regression, candidate=better(scores.regression.candidate, share)),
        stress={
            kind: replace(given, candidate=better(given.candidate, share)) for kind, given in (scores.stress or {}).items()
        },
        metrics={
            who: {name: min(1.0, (value or 0.0) + share / 5) for name, value in values.items()}
            for who, values in scores.metrics.items()
        },
    )  # fmt: skip


def _random_table(draw: Random) -> TaskScores:
    rows = draw.choice([3, 25, 60, 150])
    if draw.random() < 0.25:
        values = tuple(draw.random() for _ in range(rows))
        scores = replace(numbers(rows, 0.5, 0.5), champion=values, candidate=tuple(draw.random() for _ in range(rows)))
    else:
        right, disagree = draw.choice([0.3, 0.8, 0.95]), draw.random()
        scores = simulated(draw, rows, right=right, disagree=disagree, labels=("a", "b", "c"), task="news")
    scores = with_corrections(scores, draw.randrange(4), 3) if draw.random() < 0.5 else scores
    side = tuple(float(draw.random() < 0.7) for _ in range(4))
    scores = replace(
        scores, regression=RowScores(ids=("1", "2", "3", "4"), candidate=side, champion=(1.0, 1.0, 0.0, 1.0))
    )
    scores = with_slices(draw, scores) if draw.random() < 0.7 else scores
    return first(scores, majority=0.4, tfidf=0.7) if draw.random() < 0.2 else scores


@every_gate
def test_an_improved_candidate_never_fares_worse(gate: Gate) -> None:
    draw, seen = Random(99), set()
    for _ in range(150):
        scores = _random_table(draw)
        settings = GateSettings(
            min_accuracy={scores.task: 0.75}, min_metrics={scores.task: {"macro_f1": 0.6}}, corrections_learned=0.7
        )
        champion = None if scores.champion is None and draw.random() < 0.5 else "1.0.0"
        how = {"champion": champion, "mode": draw.choice([Mode.ONLINE, Mode.BATCH]), "reason": Reason.THRESHOLD}
        before = gate.evaluate(evaluation(scores, **how), settings)
        after = gate.evaluate(evaluation(_improved(draw, scores), **how), settings)
        assert ORDER[after.action] <= ORDER[before.action], (before.reason, after.reason)
        seen.add(before.action)
    assert GateAction.PASS in seen
    assert len(seen) > 1, "the samples never made this gate say no, so the law was not tried"


@every_gate
def test_gates_are_pure(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    given = evaluation(with_corrections(table(200, both=150, gains=10, losses=12), 2, 3), numbers(120, 0.7, 0.72))
    kept = copy.deepcopy(given)
    once = gate.evaluate(given, SETTINGS)
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("random.random", lambda: 0.5)
    assert gate.evaluate(given, SETTINGS) == once
    assert given == kept


@every_gate
def test_evidence_is_json_and_names_every_task(gate: Gate) -> None:
    given = evaluation(table(200, both=150, gains=10, losses=12), numbers(120, 0.7, 0.72))
    verdict = gate.evaluate(given, SETTINGS)
    text = json.dumps(dict(verdict.evidence), allow_nan=False)
    assert json.loads(text) == dict(verdict.evidence)
    assert set(verdict.evidence["tasks"]) == {"news", "quality"}
    assert not any(isinstance(value, datetime) for value in verdict.evidence.values())
    assert verdict.gate == gate.name
    assert gate.question.endswith("?")
