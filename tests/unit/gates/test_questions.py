"""Superiority for batches, the best of the recent versions, metrics, k-fold, and the tests that are only reported."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.words import GateAction, Mode, Reason, TaskKind
from perennial.fleet.agent import Gates
from perennial.gates import holdout_size, metrics, superiority, window
from perennial.gates.folds import folds
from perennial.gates.gate import GateSettings
from perennial.gates.mcnemar import exact_p, holm, mid_p, worse_p
from perennial.gates.report import judge
from perennial.gates.scores import Evaluation, KFold, Reference
from perennial.gates.stress import KINDS, disturbed, sample
from tests.unit.gates.samples import evaluation, first, simulated, table, with_slices

SETTINGS = GateSettings()
PASS, HOLD, APPROVE = GateAction.PASS, GateAction.HOLD, GateAction.APPROVE


@pytest.mark.req("J90", "K44")
@pytest.mark.parametrize(
    ("gains", "how", "action"),
    [
        (30, {"mode": Mode.BATCH, "reason": Reason.THRESHOLD}, PASS),  # better beyond chance
        (2, {"mode": Mode.BATCH, "reason": Reason.THRESHOLD}, APPROVE),
        (2, {"mode": Mode.BATCH, "reason": Reason.REQUEST}, APPROVE),  # somebody asked and did not say why
        (2, {"mode": Mode.BATCH, "reason": Reason.REQUEST, "why": "the style guide changed"}, PASS),
        (2, {"mode": Mode.BATCH, "reason": Reason.SCHEDULE}, PASS),
        (2, {"mode": Mode.BATCH, "reason": Reason.DRIFT}, PASS),
        (2, {"mode": Mode.BATCH, "reason": Reason.THRESHOLD, "new_labels": ("space",)}, PASS),
        (2, {"mode": Mode.ONLINE, "reason": Reason.THRESHOLD}, PASS),
        (2, {"mode": None}, HOLD),
    ],
)
def test_a_batch_candidate_is_better_or_has_a_stated_reason(
    gains: int, how: dict[str, object], action: GateAction
) -> None:
    asked = evaluation(table(400, both=340, gains=gains, losses=1), **how)
    assert superiority.evaluate(asked, SETTINGS).action is action


def test_the_report_says_which_question_was_asked() -> None:
    batch = evaluation(table(400, both=340), mode=Mode.BATCH, reason=Reason.DRIFT)
    page = judge(batch, SETTINGS, major=False).as_text()
    assert "ASKED: Batch training: is it better than the champion, or not worse, because the data drifted?" in page
    assert "ASKED: Online update" in judge(evaluation(table(400, both=340)), SETTINGS, major=False).as_text()


def test_a_record_without_its_mode_holds() -> None:
    record = {
        "champion": "1.0.0",
        "tasks": {"t": {"kind": "score", "ids": ["1"], "labels": [None], "candidate": [0.5]}},
    }
    assert superiority.evaluate(Evaluation.from_record(record, earlier_versions=True), SETTINGS).action is HOLD


@pytest.mark.req("J22", "J90")
def test_small_losses_do_not_add_up_unseen() -> None:
    scores = table(1000, both=860, gains=5, losses=15)  # 1 point below the champion
    best = Reference(version="1.0.1", looked_at=5, scores=(1.0,) * 940 + (0.0,) * 60)
    verdict = window.evaluate(evaluation(replace(scores, reference=best)), SETTINGS)
    assert verdict.action is HOLD
    assert "1.0.1" in verdict.reason
    near = replace(best, scores=(1.0,) * 890 + (0.0,) * 110)
    assert window.evaluate(evaluation(replace(scores, reference=near)), SETTINGS).action is PASS
    for lost in (
        None,
        replace(best, scores=None, problem="version 1.0.1 could not be fetched"),
        replace(best, scores=(1.0,)),
    ):
        assert window.evaluate(evaluation(replace(scores, reference=lost)), SETTINGS).action is HOLD
    assert (
        window.evaluate(
            evaluation(replace(first(scores, majority=0.1), reference=None), champion=None), SETTINGS
        ).action
        is PASS
    )


@pytest.mark.req("K33")
def test_metrics_agree_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw, labels = Random(5), ["a", "b", "c"]
    true = [draw.choice(labels) for _ in range(300)]
    rows = [{label: draw.random() + (label == name) * 0.6 for label in labels} for name in true]
    said = [max(row, key=row.__getitem__) for row in rows]
    found = metrics.measure(TaskKind.CLASSIFICATION, true, said, rows)
    assert found["macro_f1"] == pytest.approx(sklearn.f1_score(true, said, average="macro"))
    for index, label in enumerate(labels):
        assert found[f"precision:{label}"] == pytest.approx(
            sklearn.precision_score(true, said, labels=labels, average=None)[index]
        )
        assert found[f"recall:{label}"] == pytest.approx(
            sklearn.recall_score(true, said, labels=labels, average=None)[index]
        )
        area = sklearn.roc_auc_score([name == label for name in true], [row[label] for row in rows])
        assert found[f"auc:{label}"] == pytest.approx(area)


@pytest.mark.req("K33")
def test_one_metric_below_its_threshold_blocks_and_a_missing_one_too() -> None:
    scores = replace(
        table(200, both=180), metrics={"candidate": {"macro_f1": 0.81, "recall:a": 0.6, "macro_auc": None}}
    )
    for wanted, action in (
        ({"macro_f1": 0.8}, PASS), ({"macro_f1": 0.8, "recall:a": 0.7}, HOLD), ({"macro_auc": 0.5}, HOLD), ({"typo": 0.1}, HOLD),
    ):  # fmt: skip
        verdict = metrics.evaluate(evaluation(scores), GateSettings(min_metrics={"news": wanted}))
        assert verdict.action is action, wanted
    assert metrics.evaluate(evaluation(scores), GateSettings(min_metrics={"nwes": {"macro_f1": 0.1}})).action is HOLD


@pytest.mark.req("J90")
def test_paired_tests_agree_with_known_values_and_are_reported() -> None:
    # Fagerland, Lydersen and Laake (2013), airway hyper-responsiveness before and after transplantation: 7 and 1 discordant
    assert exact_p(1, 7) == pytest.approx(0.0703, abs=1e-4)
    assert mid_p(1, 7) == pytest.approx(0.0391, abs=1e-4)
    assert worse_p(1, 7) == pytest.approx(mid_p(1, 7) / 2)
    report = judge(evaluation(table(300, both=250, gains=4, losses=9)), SETTINGS, major=False)
    paired = report.tables[0]["paired"]
    assert (paired["gains"], paired["losses"]) == (4, 9)
    assert paired["bootstrap_low"] < -5 / 300 < paired["bootstrap_high"]
    assert "McNemar p 0.267 exact" in report.as_text()


def test_a_better_row_never_makes_a_drop_more_certain() -> None:
    for gains in range(12):
        for losses in range(1, 12):
            assert worse_p(gains + 1, losses) >= worse_p(gains, losses) - 1e-12
            assert worse_p(gains, losses - 1) >= worse_p(gains, losses) - 1e-12
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@pytest.mark.req("J88", "K36")
def test_few_rows_show_the_person_a_k_fold_estimate() -> None:
    scores = replace(table(40, both=30), k_fold=KFold(folds=(0.7, 0.8, 0.9), rows=90))
    verdict = holdout_size.evaluate(evaluation(scores), SETTINGS)
    assert verdict.action is APPROVE
    assert "80 % +- 10 % over 3 folds of 90 rows" in verdict.reason
    broken = replace(scores, k_fold=KFold(problem="7 rows are too few for 5 folds"))
    verdict = holdout_size.evaluate(evaluation(broken), SETTINGS)
    assert verdict.action is APPROVE
    assert verdict.evidence["not_measured"] == ["news: k-fold estimate (7 rows are too few for 5 folds)"]
    assert "k-fold estimate: 80.0 % +- 10.0 %" in judge(evaluation(scores), SETTINGS, major=False).as_text()


def rows(count: int) -> list[TrainingRow]:
    return [
        TrainingRow(
            example_id=UUID(int=n),
            task="t",
            text=f"The striker scored {n} times in the cup final.",
            label="ab"[n % 3 == 0],
        )
        for n in range(count)
    ]


@pytest.mark.req("J88")
def test_folds_are_whole_apart_and_the_same_again() -> None:
    parts = folds(rows(53), 5)
    assert sorted(row.example_id.int for part in parts for row in part) == list(range(53))
    assert {len(part) for part in parts} == {10, 11}
    assert {sum(row.label == "b" for row in part) for part in parts} <= {3, 4}
    assert parts == folds(list(reversed(rows(53))), 5)
    with pytest.raises(ValueError, match="too few"):
        folds(rows(9), 5)


@pytest.mark.req("K32")
def test_disturbed_texts_differ_and_are_the_same_for_the_same_row() -> None:
    chosen = sample(rows(100), 20)
    assert chosen == sample(list(reversed(rows(100))), 20)
    assert set(chosen) <= set(sample(rows(100), 30))  # a larger sample keeps the smaller one
    for kind in KINDS:
        made = [disturbed(kind, row) for row in chosen]
        assert made == [disturbed(kind, row) for row in chosen]
        assert all(text != row.text for text, row in zip(made, chosen, strict=True)), kind
    assert len({len(disturbed("length", row)) > len(row.text) for row in chosen}) == 2
    empty = TrainingRow(example_id=UUID(int=1), task="t", text="", label="a")
    assert disturbed("typos", empty) == ""


def test_a_normal_page_is_short_enough_to_read() -> None:
    draw = Random(8)
    tables = []
    for task in ("news", "tone", "urgency"):
        scores = with_slices(draw, simulated(draw, 600, right=0.9, disagree=0.02, labels=tuple("abcdef"), task=task))
        tables.append(replace(scores, reference=Reference()))
    page = judge(evaluation(*tables), SETTINGS, major=False).as_text().splitlines()
    assert len(page) <= 120
    assert max(len(line) for line in page) <= 125


@pytest.mark.parametrize("wrong", [{"max_slice_drop": 2.0}, {"k_folds": 1}, {"min_metrics": {"t": {"macro_f1": 80.0}}}])
def test_a_declaration_out_of_range_is_refused_when_it_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        Gates(**wrong)  # type: ignore[arg-type]
