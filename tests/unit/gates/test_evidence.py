"""The page in the form: what a person needs to decide, and nothing that anybody could smuggle into it."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction, TaskKind
from perennial.gates.evidence import MOST_SLICES, Asked, evidence, plain
from perennial.gates.gate import GateSettings
from perennial.gates.report import decide
from perennial.gates.scores import Evaluation, RowScores, TaskScores, label_slices

pytestmark = pytest.mark.req("K36", "K82")


def asked(**changes: Any) -> Asked:
    given: dict[str, Any] = {
        "agent": "scout", "version": "2.0.0", "part": "major", "digest": "0123456789abcdef" * 4, "champion": "1.4.2",
        "reason": "threshold", "requested_by": "ana", "links": {"1.4.2 in MLflow": "http://mlflow/#/models/scout/versions/7"},
    }  # fmt: skip
    return Asked(**{**given, **changes})


def report(labels: int = 3) -> dict[str, Any]:
    """What the gates really store, for a candidate that is better on one label and worse on another."""
    rows = 30 * labels
    names = [f"label {index:02}" for index in range(labels)]
    truth = tuple(names[index % labels] for index in range(rows))
    champion = tuple(0.0 if index // labels % 4 == 0 else 1.0 for index in range(rows))
    # the first label falls, the others are all right now
    candidate = tuple(0.0 if index % labels == 0 and index // labels % 2 == 0 else 1.0 for index in range(rows))
    scores = TaskScores(
        task="news", kind=TaskKind.CLASSIFICATION, ids=tuple(map(str, range(rows))), labels=truth, champion=champion,
        candidate=candidate, slices=label_slices(truth),
        corrections=RowScores(ids=("c1", "c2"), candidate=(1.0, 1.0)),
    )  # fmt: skip
    verdicts = [
        Verdict(gate="non_inferiority", action=GateAction.PASS, reason="fine"),
        Verdict(gate="holdout_size", action=GateAction.APPROVE, reason="news: 90 holdout rows, fewer than 100"),
    ]
    found = decide(
        verdicts, major=True, evaluation=Evaluation(tasks=(scores,), champion="1.4.2"), settings=GateSettings(),
        required=[],
    )  # fmt: skip
    return {**found.as_dict(), "new_labels": {"news": ["weather"]}}


def test_it_says_what_why_how_good_what_changed_and_what_an_answer_does() -> None:
    page = evidence(report(), asked())
    for expected in (
        "**scout 1.4.2 → 2.0.0** (major version), candidate `0123456789abcdef`",
        "Trained because of: threshold. Asked for by: ana.",
        "- **holdout\\_size**: news: 90 holdout rows, fewer than 100",
        "- **sign\\_off**: a major version",
        "- new labels of news: weather",
        "- gates that pass: 1",
        "| all | 90 | 73.3 % | 83.3 % | +10.0 (",
        "- corrections of this batch: 2 of 2 answered right",
        "[1.4.2 in MLflow](http://mlflow/#/models/scout/versions/7)",
        "signed as 2.0.0",
        "was not used lapses after 72 hours",
        "No answer in time is a refusal.",
    ):
        assert expected in page, page
    counts = next(line for line in page.splitlines() if line.startswith("- examples whose answer changed"))
    fixed, broken, same = (int(word) for word in counts.replace(",", "").split() if word.isdigit())
    assert (fixed + broken + same, fixed - broken) == (90, 9)
    assert broken == 7


def test_the_worst_slice_comes_first_and_the_rest_are_counted() -> None:
    page = evidence(report(labels=20), asked())
    slices = [line for line in page.splitlines() if line.startswith("| slice")]
    assert len(slices) == MOST_SLICES
    assert slices[0].startswith("| slice label 'label 00'")
    assert "| 8 more slices, none worse |" in page


@pytest.mark.parametrize(
    ("people", "told"),
    [
        ({"two_person": True}, "ana asked for this training and cannot approve it."),
        ({"two_person": True, "requested_by": "", "needed": 2}, "2 different people must approve"),
        ({"approvers": ("bo", "cy")}, "Only bo, cy may approve."),
    ],
)
def test_the_rule_is_told_before_anybody_answers(people: dict[str, Any], told: str) -> None:
    assert told in evidence(report(), asked(**people))


def test_labels_from_data_bring_no_markup_into_the_form() -> None:
    found = report()
    evil = "![x](http://evil.test/pixel) <img src=x> [click](javascript:1) | `a` **b**\n# big"
    found["tables"][0]["slices"][0]["title"] = evil
    found["new_labels"] = {"news": [evil]}
    found["not_measured"] = [evil]
    found["verdicts"][1]["reason"] = evil
    page = evidence(found, asked())
    assert "](http://evil" not in page
    assert "http://evil" not in page
    assert "<img" not in page.replace("\\<img", "")
    assert "\n# big" not in page
    assert plain(evil) in page
    for line in page.splitlines():
        if line.startswith("| slice"):
            assert line.replace("\\|", "").count("|") == 6  # still five cells


def test_a_report_without_tables_or_champion_is_still_a_question() -> None:
    page = evidence({"action": "approve", "summary": "approve: sign_off"}, asked(champion=None, links={}))
    assert "scout no champion yet → 2.0.0" in page
    assert "- approve: sign\\_off" in page
    assert "Look closer" not in page


def test_the_same_report_makes_the_same_page() -> None:
    assert evidence(report(), asked()) == evidence(report(), asked())
