"""A replay finds failures and slowness before any caller meets the candidate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import pytest

from perennial.domain.model import Prediction
from perennial.domain.words import RolloutAction, TaskKind
from perennial.rollout.agreement import agrees, correctness
from perennial.rollout.machine import Plan
from perennial.rollout.rows import RecentInput
from perennial.rollout.shadow import compare

PLAN = Plan(min_samples=5, latency_slack_ms=5)  # these models answer within milliseconds
INPUTS = [RecentInput(task="topic", text=f"article {number}") for number in range(20)]


@dataclass
class Model:
    """Answers one label; may fail every ``fails``-th time, take ``seconds``, or be sure of nothing."""

    label: str = "sports"
    fails: int = 0
    seconds: float = 0.0
    confidence: float = 0.9
    calls: int = 0

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        self.calls += 1
        time.sleep(self.seconds)
        if self.fails and self.calls % self.fails == 0:
            raise RuntimeError("no answer")
        return [Prediction(output=self.label, confidence=self.confidence) for _ in texts]


@pytest.mark.req("K38")
def test_agreement_and_what_changed_are_reported_without_a_text() -> None:
    report = compare({"topic": Model()}, {"topic": Model(label="world")}, INPUTS)
    assert (report.requests, report.errors, report.agreement) == (20, 0, 0.0)
    assert report.changed == {"topic: sports -> world": 20}
    assert "article" not in json.dumps(report.as_dict())
    assert report.verdict(PLAN).action is RolloutAction.PROMOTE  # a retrained model is meant to differ


@pytest.mark.req("K38", "K40")
@pytest.mark.parametrize(
    ("candidate", "says"),
    [(Model(fails=3), "6 of 20"), (Model(confidence=nan), "20 of 20"), (Model(seconds=0.02), "median latency")],
)
def test_a_candidate_that_fails_or_crawls_is_reverted(candidate: Model, says: str) -> None:
    verdict = compare({"topic": Model()}, {"topic": candidate}, INPUTS).verdict(PLAN)
    assert verdict.action is RolloutAction.ROLLBACK
    assert says in verdict.reason


def test_a_candidate_without_the_task_fails_every_request() -> None:
    assert compare({"topic": Model()}, {}, INPUTS).errors == 20


def test_nothing_to_replay_is_not_a_pass() -> None:
    for report in (compare({"topic": Model()}, {"topic": Model()}, []), compare({}, {"topic": Model()}, INPUTS)):
        assert report.agreement is None
        assert report.verdict(PLAN).action is RolloutAction.HOLD


@pytest.mark.req("J28")
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [("Breaking  News", "breaking news ", True), ({"Label": "A"}, {"label": "a"}, True), ({"a": 1}, {"a": 2}, False),
     (["x", "Y"], ["X", "y"], True), (None, "", False), (1, "1", False), (0.70, 0.72, True), (0.7, 0.9, False)],
)  # fmt: skip
def test_answers_are_compared_without_case_and_spaces(first: object, second: object, same: bool) -> None:
    assert agrees(first, second) is same


def test_a_score_is_right_by_its_distance_and_never_by_accident() -> None:
    assert correctness(TaskKind.SCORE, 0.9, 0.4) == pytest.approx(0.5)
    assert correctness(TaskKind.SCORE, 5.0, 0.0) == 0.0
    assert correctness(TaskKind.SCORE, "high", 0.4) == 0.0
    assert correctness(TaskKind.SCORE, nan, 0.4) == 0.0
