"""One decision from many verdicts, as JSON and as a page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates import catalogue
from perennial.gates.gate import Gate, GateSettings
from perennial.gates.report import GateReport, decide, judge
from tests.unit.gates.samples import evaluation, first, numbers, table, with_corrections

PASS, HOLD, APPROVE = GateAction.PASS, GateAction.HOLD, GateAction.APPROVE


def _all(**actions: GateAction) -> list[Verdict]:
    return [
        Verdict(gate=gate.name, action=actions.get(gate.name, PASS), reason=f"because of {gate.name}")
        for gate in catalogue.gates()
    ]


@pytest.mark.parametrize(
    ("actions", "major", "wanted"),
    [
        ({}, False, PASS),
        ({}, True, APPROVE),
        ({"slices": APPROVE}, False, APPROVE),
        ({"slices": APPROVE, "absolute": HOLD}, False, HOLD),
        ({"absolute": HOLD}, True, HOLD),
    ],
)
def test_hold_beats_approve_beats_pass(actions: dict[str, GateAction], major: bool, wanted: GateAction) -> None:
    report = decide(_all(**actions), major=major)
    assert report.action is wanted
    if wanted is not PASS:
        assert report.summary.startswith(wanted.value)


def test_a_gate_that_was_not_asked_holds() -> None:
    report = decide(_all()[1:], major=False)
    assert report.action is HOLD
    assert "was not asked" in report.summary
    assert decide([], major=False).action is HOLD
    assert decide([], major=False, required=[]).action is HOLD


def test_a_gate_that_breaks_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Verdict:
        raise RuntimeError("secret detail")

    gates = (*catalogue.gates(), Gate(name="zz", question="?", evaluate=broken))
    monkeypatch.setattr("perennial.gates.report.gates", lambda: gates)
    report = judge(evaluation(table(200, both=180)), GateSettings(), major=False)
    assert report.action is HOLD
    assert "RuntimeError" in report.summary
    assert "secret detail" not in report.summary


def test_the_report_survives_json_and_reads_as_a_page() -> None:
    scores = replace(table(200, both=150, gains=2, losses=40, labels=("world", "rare")), task="news")
    whole = evaluation(with_corrections(scores, 3, 4), numbers(150, 0.8, 0.8), unchanged=("sentiment",))
    report = judge(whole, GateSettings(slice_rows=100), major=True)
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert GateReport.from_dict(json.loads(text)).as_dict() == report.as_dict()
    page = report.as_text()
    for words in (
        "HELD",
        "TASK news",
        "label rare",
        "-19.0",
        "3 of 4 answered right",
        "sentiment: not trained",
        "TERMS",
    ):
        assert words in page
    assert max(len(line) for line in page.splitlines()) <= 120


def test_a_first_version_is_recorded_as_bootstrap() -> None:
    report = judge(
        evaluation(first(table(200, both=180), majority=0.5, tfidf=0.7), champion=None), GateSettings(), major=False
    )
    assert (report.action, report.bootstrap) == (PASS, True)
    assert "baseline to beat: tfidf 70.0 %" in report.as_text()


def test_an_unmeasured_candidate_still_gives_a_readable_report() -> None:
    report = judge(evaluation(replace(table(50, both=40), candidate=None)), GateSettings(), major=False)
    assert report.action is HOLD
    assert json.dumps(report.as_dict(), allow_nan=False)
    assert "cannot be judged" in report.as_text()
