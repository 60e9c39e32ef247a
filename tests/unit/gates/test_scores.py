"""Reading the evaluation's JSON, scoring one row, and naming what is malformed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from perennial.domain.words import TaskKind
from perennial.gates.scores import Evaluation, TaskScores, is_right, problems, row_score
from tests.unit.gates.samples import table


@pytest.mark.parametrize(
    ("kind", "output", "label", "score"),
    [
        (TaskKind.CLASSIFICATION, "a", "a", 1.0),
        (TaskKind.CLASSIFICATION, "a", "b", 0.0),
        (TaskKind.CLASSIFICATION, None, "b", 0.0),
        (TaskKind.SCORE, 0.25, 0.75, 0.5),
        (TaskKind.SCORE, 5, 0.5, 0.0),
    ],
)
def test_row_score(kind: TaskKind, output: object, label: object, score: float) -> None:
    assert row_score(kind, output, label) == score


@pytest.mark.parametrize("output", [math.nan, math.inf, None, "0.5", True])
def test_an_answer_that_is_no_number_scores_nan(output: object) -> None:
    assert math.isnan(row_score(TaskKind.SCORE, output, 0.5))
    assert not is_right(TaskKind.SCORE, math.nan)


def test_a_label_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="quarantine"):
        row_score(TaskKind.SCORE, 0.5, "good")


def test_the_evaluations_json_becomes_tables() -> None:
    record = {
        "champion": "1.2.3", "unchanged": ["sentiment"],
        "tasks": {
            "news": {
                "kind": "classification", "ids": ["1", "2"], "labels": ["x", "y"], "times": [None, None],
                "candidate": [1.0, 0.0], "champion": [1.0, 1.0], "baselines": None, "summary": {},
                "corrections": {"ids": ["9"], "candidate": [1.0]},
                "regression": {"ids": [], "candidate": [], "champion": []},
            },
            "quality": {"kind": "score", "ids": ["3"], "labels": [None], "candidate": [None], "champion": None},
        },
    }  # fmt: skip
    found = Evaluation.from_record(record, earlier_versions=True)
    news, quality = found.tasks
    assert (found.champion, found.unchanged) == ("1.2.3", ("sentiment",))
    assert news.slices == {"x": (0,), "y": (1,)}
    assert news.corrections.ids == ("9",)
    assert problems(news) == []
    assert quality.corrections.candidate is None  # not in the record: not measured
    assert problems(quality) == ["quality: candidate has scores that are not between 0 and 1"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"candidate": None}, "candidate was not measured"),
        ({"candidate": (1.0,)}, "1 scores for 4 rows"),
        ({"champion": (1.0, 1.0, 1.0)}, "3 scores for 4 rows"),
        ({"candidate": (1.0, 0.5, 1.0, 0.0)}, "other than right or wrong"),
        ({"candidate": (1.0, math.nan, 1.0, 0.0)}, "not between 0 and 1"),
        ({"candidate": (1.0, 2.0, 1.0, 0.0)}, "not between 0 and 1"),
        ({"ids": ("1", "1", "2", "3")}, "do not belong together"),
        ({"labels": ("a",)}, "do not belong together"),
        ({"ids": (), "labels": (), "candidate": (), "champion": ()}, "has no rows"),
    ],
)
def test_malformed_tables_are_named(change: dict[str, object], told: str) -> None:
    broken: TaskScores = replace(table(4, both=4), **change)  # type: ignore[arg-type]
    assert any(told in problem for problem in problems(broken))
