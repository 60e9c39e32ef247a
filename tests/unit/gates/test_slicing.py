"""Slices of every kind, one family of tests over them, and what they can and cannot see."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest

from perennial.domain.words import GateAction
from perennial.gates import non_inferiority, slices
from perennial.gates.gate import GateSettings
from perennial.gates.report import judge
from perennial.gates.scores import RowScores, TaskScores
from perennial.gates.slicing import Slice, family, named_groups, slices_of
from tests.unit.gates.samples import evaluation, numbers, simulated, table, with_slices

SETTINGS = GateSettings()
PASS, HOLD, APPROVE = GateAction.PASS, GateAction.HOLD, GateAction.APPROVE
LABELS = ("a", "b", "c", "d")


def whole(draw: Random, rows: int, *, disagree: float = 0.05, right: float = 0.9) -> TaskScores:
    scores = simulated(draw, rows, right=right, disagree=disagree, labels=LABELS, task="news")
    return with_slices(draw, scores)


def found(scores: TaskScores, **settings: int) -> dict[str, Slice]:
    return {one.title: one for one in slices_of(scores, GateSettings(**settings))}  # type: ignore[arg-type]


@pytest.mark.req("K32")
def test_every_kind_of_slice_is_cut_by_its_rule() -> None:
    scores = whole(Random(1), 300)
    made = found(scores)
    assert len(made["time 'recent'"].candidate) == 100
    assert len(made["time 'old'"].candidate) == 100
    assert made["time 'recent'"].candidate == tuple((scores.candidate or ())[200:])
    assert {title for title in made if title.startswith("time '2025-")} == {
        f"time '2025-0{month}'" for month in range(1, 6)
    }
    assert {"source 'desk'", "source 'wire'", "source 'readers'", "batch 'before this batch'"} <= set(made)
    assert len(made["batch 'before this batch'"].candidate) == sum(scores.earlier)
    assert len(made["forgetting 'labels not in this batch'"].candidate) == len(scores.slices["d"])
    assert {f"stress {kind!r}" for kind in ("typos", "case", "negation", "length")} <= set(made)
    groups = named_groups(scores, family(evaluation(scores), SETTINGS)["news"])
    assert {name: group["rows"] for name, group in groups.items()} == {"recent": 100, "stress": 240, "old": 100}


@pytest.mark.req("J21")
def test_the_performance_window_changes_what_counts_as_recent() -> None:
    scores = whole(Random(2), 600)
    assert [len(found(scores, performance_window=n)["time 'recent'"].candidate) for n in (30, 100, 900)] == [
        30,
        100,
        200,
    ]


def test_rows_without_or_with_one_time_are_said_not_to_be_measured() -> None:
    scores = replace(table(300, both=280), times=(datetime(2025, 8, 1, tzinfo=UTC),) * 300)
    verdict = slices.evaluate(evaluation(scores), SETTINGS)
    assert verdict.evidence["not_measured"] == [
        "news: recent and old rows (the rows were all made at about the same time)"
    ]
    unknown = replace(scores, times=(None, *scores.times[1:]))
    assert "not every row says" in slices.evaluate(evaluation(unknown), SETTINGS).evidence["not_measured"][0]


def test_disturbed_texts_that_were_not_measured_hold() -> None:
    scores = whole(Random(3), 300)
    for broken in (
        None,
        {"typos": RowScores(ids=("1",), candidate=None, champion=(1.0,))},
        {"typos": RowScores(ids=("1",), candidate=(1.0,), champion=None)},
    ):
        assert slices.evaluate(evaluation(replace(scores, stress=broken)), SETTINGS).action is HOLD


@pytest.mark.req("J22", "J90")
@pytest.mark.parametrize(("rows", "disagree"), [(200, 0.25), (400, 0.5), (1000, 0.05)])
def test_identical_models_are_held_in_at_most_5_of_100_with_every_slice_active(rows: int, disagree: float) -> None:
    draw, held, most = Random(rows), 0, 0
    for _ in range(200):
        scores = replace(whole(draw, rows, disagree=disagree, right=0.85), reference=None)
        scores = replace(scores, reference=table(1, both=1).reference)
        report = judge(evaluation(scores), SETTINGS, major=False)
        most = max(most, sum("p_family" in line for line in report.tables[0]["slices"]))
        held += report.action is HOLD
    assert most >= 18, "the slices were not active"
    assert held <= 10, f"{held} of 200 were held"


@pytest.mark.req("J49", "K32")
def test_a_slice_of_600_rows_that_falls_6_points_never_passes_though_the_whole_barely_moves() -> None:
    draw, passed, held = Random(7), 0, 0
    for _ in range(60):
        scores = whole(draw, 2400, disagree=0.04)
        hurt = set(draw.sample(scores.slices["c"], round(0.0667 * len(scores.slices["c"]))))  # of 90 % that are right
        candidate = tuple(0.0 if row in hurt else value for row, value in enumerate(scores.candidate or ()))
        action = slices.evaluate(evaluation(replace(scores, candidate=candidate)), SETTINGS).action
        passed, held = passed + (action is PASS), held + (action is HOLD)
    assert passed == 0
    assert held >= 45  # the others wait for a person


def test_a_drop_that_may_be_chance_asks_a_person() -> None:
    scores = table(1000, both=900, gains=2, losses=2, labels=LABELS)
    rows = [row for row in scores.slices["b"] if (scores.candidate or ())[row] == 1.0][:9]
    doubtful = replace(
        scores, candidate=tuple(0.0 if row in rows else one for row, one in enumerate(scores.candidate or ()))
    )
    verdict = slices.evaluate(evaluation(doubtful), SETTINGS)
    assert verdict.action in (APPROVE, HOLD)
    assert "label 'b'" in verdict.reason
    fewer = replace(
        scores, candidate=tuple(0.0 if row in rows[:2] else one for row, one in enumerate(scores.candidate or ()))
    )
    assert slices.evaluate(evaluation(fewer), SETTINGS).action is PASS


@pytest.mark.req("J22", "J92")
def test_the_whole_report_keeps_4_9_points_where_the_owner_allows_a_slice_as_much_and_holds_5_1() -> None:
    for drop, actions in ((490, {PASS}), (510, {HOLD})):
        scores = with_slices(Random(drop), table(10_000, both=8_000, gains=100, losses=100 + drop), early=1.0)
        shuffled = list(range(10_000))
        Random(1).shuffle(shuffled)  # the drop is everywhere, not in one month
        even = replace(
            scores, candidate=tuple((scores.candidate or ())[row] for row in shuffled), reference=table(1, both=1).reference,
            champion=tuple((scores.champion or ())[row] for row in shuffled), stress={},
        )  # fmt: skip
        allowed = GateSettings(max_slice_drop=0.20)
        assert judge(evaluation(even), allowed, major=False).action in actions
        assert judge(evaluation(even), SETTINGS, major=False).action is HOLD  # every slice fell, beyond doubt


def test_poisoned_holdout_rows_of_the_batch_do_not_hide_a_drop() -> None:
    scores = table(400, both=330, labels=("a", "b"))
    candidate, champion = list(scores.candidate or ()), list(scores.champion or ())
    for row in range(60):  # old rows that the candidate lost
        candidate[row] = 0.0
    for row in range(330, 400):  # flipped rows that came in with the batch: the poisoned candidate "knows" them
        candidate[row] = 1.0
    poisoned = replace(
        scores, candidate=tuple(candidate), champion=tuple(champion), earlier=tuple(row < 330 for row in range(400))
    )
    blind = non_inferiority.evaluate(evaluation(replace(poisoned, earlier=())), SETTINGS)
    assert blind.action is PASS
    verdict = non_inferiority.evaluate(evaluation(poisoned), SETTINGS)
    assert "-18.2 points on the rows from before this batch" in verdict.reason
    held = slices.evaluate(evaluation(poisoned), SETTINGS)
    assert held.action is HOLD
    assert "hide it" in held.reason


def test_number_tasks_have_slices_too() -> None:
    scores = with_slices(Random(4), numbers(300, 0.9, 0.9))
    fallen = replace(scores, candidate=(0.9,) * 200 + (0.8,) * 100)
    verdict = slices.evaluate(evaluation(fallen), SETTINGS)
    assert verdict.action is HOLD
    assert "time 'recent'" in verdict.reason
    assert slices.evaluate(evaluation(scores), SETTINGS).action is PASS
