"""Each gate's own question, at its edges."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from perennial.domain.words import GateAction
from perennial.gates import absolute, bootstrap, corrections, holdout_size, non_inferiority, slices
from perennial.gates.gate import GateSettings
from perennial.gates.report import judge
from perennial.gates.scores import RowScores
from tests.unit.gates.samples import evaluation, first, numbers, simulated, table, with_corrections

SETTINGS = GateSettings()
PASS, HOLD, APPROVE = GateAction.PASS, GateAction.HOLD, GateAction.APPROVE


@pytest.mark.req("J22", "J92")
@pytest.mark.parametrize(("drop", "action"), [(490, PASS), (500, PASS), (510, HOLD)])
def test_a_drop_of_4_9_points_is_kept_and_5_1_is_held_on_10000_rows(drop: int, action: GateAction) -> None:
    scores = table(10_000, both=8_000, gains=100, losses=100 + drop)
    verdict = non_inferiority.evaluate(evaluation(scores), SETTINGS)
    assert verdict.action is action, verdict.reason
    assert verdict.evidence["tasks"]["news"]["difference"] == -drop / 10_000


@pytest.mark.req("J22", "J99")
def test_the_threshold_is_a_setting() -> None:
    scores = table(10_000, both=8_000, gains=100, losses=140)
    for allowed, action in ((0.05, PASS), (0.003, HOLD)):
        settings = GateSettings.of({"rollback_threshold": None}, rollback_threshold=allowed)
        assert non_inferiority.evaluate(evaluation(scores), settings).action is action
    owner = GateSettings.of({"rollback_threshold": 0.003}, rollback_threshold=0.05)
    assert non_inferiority.evaluate(evaluation(scores), owner).action is HOLD


@pytest.mark.req("J22", "J90")
@pytest.mark.parametrize(
    ("rows", "disagree", "tasks"),
    [(200, 0.25, 3), (400, 0.5, 3), (1000, 1.0, 3)],  # from a small update to answers that have nothing in common
)
def test_equally_good_models_are_held_in_at_most_5_of_100(rows: int, disagree: float, tasks: int) -> None:
    draw, held, runs = Random(rows), 0, 200
    for _ in range(runs):
        tables = [
            simulated(draw, rows, right=0.85, disagree=disagree, labels=("a", "b", "c", "d", "e"), task=f"t{index}")
            for index in range(tasks)
        ]
        report = judge(evaluation(*tables), SETTINGS, major=False)
        held += report.action is HOLD
    assert held <= runs * 0.05, f"{held} of {runs} were held"


@pytest.mark.req("J22", "J49")
def test_a_damaged_candidate_is_always_held() -> None:
    draw, runs = Random(5), 50
    for _ in range(runs):
        scores = simulated(draw, 200, right=0.9, disagree=0.1, labels=("a", "b", "c"), task="news")
        damaged = replace(
            scores, candidate=tuple(0.0 if draw.random() < 0.25 else value for value in scores.candidate or ())
        )
        assert non_inferiority.evaluate(evaluation(damaged), SETTINGS).action is HOLD


def test_doubt_is_held_and_below_the_minimum_asks_a_person() -> None:
    scores = table(60, both=48, gains=4, losses=7)  # -5 points, interval down to about -17
    assert non_inferiority.evaluate(evaluation(scores), GateSettings(min_holdout=50)).action is HOLD
    asked = non_inferiority.evaluate(evaluation(scores), GateSettings(min_holdout=100))
    assert asked.action is APPROVE
    assert "a person decides" in asked.reason
    collapsed = table(60, both=20, losses=30)
    assert non_inferiority.evaluate(evaluation(collapsed), GateSettings(min_holdout=100)).action is HOLD


def test_score_tasks_are_compared_too() -> None:
    assert non_inferiority.evaluate(evaluation(numbers(200, 0.90, 0.80)), SETTINGS).action is HOLD
    assert non_inferiority.evaluate(evaluation(numbers(200, 0.90, 0.87)), SETTINGS).action is PASS
    assert non_inferiority.evaluate(evaluation(numbers(200, 0.80, 0.90)), SETTINGS).action is PASS


def test_absolute_threshold_by_task() -> None:
    scores = table(100, both=80)
    for wanted, action in ((0.80, PASS), (0.81, HOLD)):
        verdict = absolute.evaluate(evaluation(scores), GateSettings(min_accuracy={"news": wanted}))
        assert verdict.action is action
    misspelt = absolute.evaluate(evaluation(scores), GateSettings(min_accuracy={"nwes": 0.1}))
    assert misspelt.action is HOLD
    assert "nwes" in misspelt.reason
    kept = absolute.evaluate(evaluation(scores, unchanged=("tone",)), GateSettings(min_accuracy={"tone": 0.9}))
    assert kept.action is PASS


def test_a_slice_that_falls_is_held_though_the_whole_barely_moves() -> None:
    draw = Random(2)
    scores = simulated(draw, 1000, right=0.95, disagree=0.0, labels=tuple("abcdefghij"), task="news")
    rows = set(scores.slices["c"][:30])
    hurt = tuple(0.0 if row in rows else value for row, value in enumerate(scores.candidate or ()))
    poisoned = evaluation(replace(scores, candidate=hurt))
    assert non_inferiority.evaluate(poisoned, SETTINGS).action is PASS  # 3 points overall
    verdict = slices.evaluate(poisoned, SETTINGS)
    assert verdict.action is HOLD
    assert "'c'" in verdict.reason
    assert "'a'" not in verdict.reason


def test_small_slices_are_said_not_to_be_measured() -> None:
    names = ("a",) * 80 + ("b",) * 19
    scores = replace(table(99, both=99), labels=names, slices={"a": tuple(range(80)), "b": tuple(range(80, 99))})
    lost = replace(scores, candidate=(1.0,) * 80 + (0.0,) * 19)
    verdict = slices.evaluate(evaluation(lost), SETTINGS)
    assert verdict.action is PASS
    assert verdict.evidence["not_measured"] == ["news: label 'b' (19 rows)"]
    nobody = slices.evaluate(evaluation(table(30, both=30, labels=("a", "b", "c"))), SETTINGS)
    assert nobody.action is APPROVE
    assert "no slice was measured" in nobody.reason


@pytest.mark.parametrize(
    "bad", [{}, {"a": (0, 2)}, {"a": (0,), "b": (1, 3)}, {"a": (0, 2), "b": (1, 3), "recent": (9,)}]
)
def test_missing_or_wrong_slices_hold(bad: dict[str, tuple[int, ...]]) -> None:
    assert slices.evaluate(evaluation(replace(table(4, both=4), slices=bad)), SETTINGS).action is HOLD


def test_corrections_must_be_learned() -> None:
    for right, wanted, action in ((5, 1.0, PASS), (4, 1.0, HOLD), (4, 0.8, PASS), (3, 0.8, HOLD), (0, 0.0, PASS)):
        scores = with_corrections(table(100, both=90), right, 5)
        verdict = corrections.evaluate(evaluation(scores), GateSettings(corrections_learned=wanted))
        assert verdict.action is action, (right, wanted)
        assert len(verdict.evidence["tasks"]["news"]["missed_ids"]) == 5 - right


def test_earlier_corrections_must_not_be_unlearned() -> None:
    ids = ("r1", "r2", "r3")
    scores = replace(
        table(100, both=90), regression=RowScores(ids=ids, candidate=(1.0, 0.0, 0.0), champion=(1.0, 1.0, 0.0))
    )
    verdict = corrections.evaluate(evaluation(scores), SETTINGS)
    assert verdict.action is HOLD
    assert verdict.evidence["tasks"]["news"]["unlearned_ids"] == ["r2"]
    never = replace(scores, regression=RowScores(ids=ids, candidate=(1.0, 1.0, 0.0), champion=(1.0, 1.0, 0.0)))
    assert corrections.evaluate(evaluation(never), SETTINGS).action is PASS
    unasked = replace(scores, regression=RowScores(ids=ids, candidate=(1.0, 1.0, 1.0), champion=None))
    assert corrections.evaluate(evaluation(unasked), SETTINGS).action is HOLD


def test_a_corrected_number_is_learned_within_a_tenth() -> None:
    for value, action in ((0.95, PASS), (0.85, HOLD)):
        scores = replace(numbers(100, 0.8, 0.9), corrections=RowScores(ids=("c",), candidate=(value,)))
        assert corrections.evaluate(evaluation(scores), SETTINGS).action is action


def test_a_first_version_must_beat_every_baseline() -> None:
    scores = table(100, both=80)
    for baselines, action in (
        ({"majority": 0.3, "tfidf": 0.79}, PASS),
        ({"majority": 0.3, "tfidf": 0.80}, HOLD),
        ({"majority": 0.9, "tfidf": 0.10}, HOLD),
        ({"majority": float("nan"), "tfidf": 0.10}, HOLD),
        ({}, HOLD),
    ):
        verdict = bootstrap.evaluate(evaluation(first(scores, **baselines), champion=None), SETTINGS)
        assert verdict.action is action, baselines
        assert verdict.evidence["bootstrap"] is True
    perfect = first(table(100, both=100), majority=0.5, tfidf=1.0)
    assert bootstrap.evaluate(evaluation(perfect, champion=None), SETTINGS).action is PASS


def test_a_first_version_exists_once() -> None:
    scores = first(table(100, both=80), majority=0.3)
    again = replace(evaluation(scores, champion=None), earlier_versions=True)
    verdict = bootstrap.evaluate(again, SETTINGS)
    assert verdict.action is HOLD
    assert "rollback" in verdict.reason
    grown = evaluation(table(100, both=80, task="old"), scores)
    assert bootstrap.evaluate(grown, SETTINGS).evidence["bootstrap"] is False
    assert bootstrap.evaluate(grown, SETTINGS).action is PASS


def test_few_rows_ask_a_person_and_none_hold() -> None:
    for rows, action in ((100, PASS), (99, APPROVE), (1, APPROVE), (0, HOLD)):
        assert holdout_size.evaluate(evaluation(table(rows, both=rows)), SETTINGS).action is action


@pytest.mark.parametrize(
    "wrong", [{"rollback_threshold": 1.5}, {"min_accuracy": {"a": float("nan")}}, {"min_holdout": 0}, {"slice_rows": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        GateSettings(**wrong)  # type: ignore[arg-type]
