"""A worse mean beyond chance: exact for exchangeable rows, near its level for skewed ones, and without a smallest value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest

from perennial.domain.words import GateAction
from perennial.gates import paired_means
from perennial.gates.gate import GateSettings
from perennial.gates.paired_means import worse_mean_p
from perennial.gates.report import judge
from perennial.gates.scores import RowScores, TaskScores
from tests.unit.gates.samples import evaluation, numbers, simulated, table, with_slices

Draw = np.random.Generator
LEVELS = (0.05, 0.02, 0.005)


def _p(differences: list[float]) -> float:
    return worse_mean_p([0.0] * len(differences), differences)


# equally good models: alike; often a little worse and rarely much better; the other way round; alike on most rows
NULLS: dict[str, Callable[[Draw, int], np.ndarray]] = {
    "alike": lambda draw, rows: draw.beta(8, 2, rows) - draw.beta(8, 2, rows),
    "rarely better": lambda draw, rows: np.minimum(0.1 * (draw.exponential(size=rows) - 1), 1.0),
    "rarely worse": lambda draw, rows: np.maximum(-0.1 * (draw.exponential(size=rows) - 1), -1.0),
    "mostly equal": lambda draw, rows: np.where(draw.random(rows) < 0.1, draw.choice([-0.5, 0.5], rows), 0.0),
}


@pytest.mark.parametrize("rows", [20, 60, 200])
@pytest.mark.parametrize("null", NULLS)
def test_equally_good_models_are_called_worse_about_as_often_as_the_level_says(
    monkeypatch: pytest.MonkeyPatch, null: str, rows: int
) -> None:
    monkeypatch.setattr(paired_means, "_MOST", 2_000)  # enough for these levels, and ten times as fast
    draw, tries = np.random.default_rng(rows), 600
    found = np.array([_p(list(NULLS[null](draw, rows))) for _ in range(tries)])
    for level in LEVELS:
        wanted = level * tries
        assert (found <= level).sum() <= 1.5 * wanted + 3 * wanted**0.5, f"{null}, {rows} rows, {level}"


def test_the_share_of_exchanges_is_the_exact_one() -> None:
    draw = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.3):
        differences = draw.normal(-shift, 0.3, 12)
        exchanged = np.array(list(product((0.0, 1.0), repeat=12))) @ differences
        exact = float((exchanged >= 0).mean())
        assert paired_means._flipped(differences) == pytest.approx(exact, abs=0.012)
    assert paired_means._flipped(np.full(40, -0.1)) == pytest.approx(2.0**-40), "none of 2^40 but the one"


def test_there_is_no_smallest_value_and_the_same_table_gives_the_same() -> None:
    values = [_p([-0.85] * rows) for rows in (20, 40, 60, 120)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(2.0**-20)
    assert values[2] < 1e-15
    draw = Random(1)
    noisy = [draw.gauss(-0.2, 0.2) for _ in range(300)]
    assert _p(noisy) == _p(noisy) < 1e-20


def test_a_better_row_never_lowers_the_value() -> None:
    draw = Random(5)
    for _ in range(150):
        before = [draw.gauss(-0.1, 0.2) for _ in range(draw.choice((3, 20, 45)))]
        row = draw.randrange(len(before))
        after = [*before[:row], before[row] + draw.random() ** 3, *before[row + 1 :]]
        assert _p(after) >= _p(before)


@pytest.mark.parametrize("settings", [GateSettings(), GateSettings(slice_doubt=0.02)], ids=["default", "stricter"])
def test_a_slice_of_a_score_task_that_breaks_down_holds_among_many_slices(settings: GateSettings) -> None:
    draw, best = Random(8), table(1, both=1).reference

    def whole(scores: TaskScores) -> TaskScores:
        return replace(with_slices(draw, scores), reference=best)

    labels = tuple("abcdefgh")
    news, mood = (
        whole(simulated(draw, 600, right=0.9, disagree=0.0, labels=labels, task=task)) for task in ("news", "mood")
    )
    quality = whole(numbers(400, 0.9, 0.9))
    assert judge(evaluation(news, mood, quality), settings, major=False).action is GateAction.PASS
    typos = (quality.stress or {})["typos"]
    broken = RowScores(ids=typos.ids, candidate=(0.05,) * len(typos.ids), champion=typos.champion)
    hurt = replace(quality, stress={**(quality.stress or {}), "typos": broken})
    report = judge(evaluation(news, mood, hurt), settings, major=False)
    lines = [line for one in report.tables for line in one["slices"] if "p_family" in line]
    assert len(lines) >= 66
    (fallen,) = [line for line in lines if line["difference"] < 0]
    assert fallen["difference"] == pytest.approx(-0.85)
    assert report.action is GateAction.HOLD, fallen
