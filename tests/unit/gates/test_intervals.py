"""Paired intervals: published values, coverage, and the law that a better row never lowers an end."""

from __future__ import annotations

from random import Random

import pytest

from perennial.domain.words import TaskKind
from perennial.gates.intervals import bootstrap, paired_interval, tango


@pytest.mark.req("J90")
@pytest.mark.parametrize(
    ("gains", "losses", "rows", "low", "high"),
    [
        (12, 2, 50, 0.0611, 0.3447),  # Newcombe, Statistics in Medicine 17 (1998) 2635, table II, score method
        (0, 1, 44, -0.1181, 0.0594),
        (0, 0, 50, -0.0713, 0.0713),  # closed form when the models never disagree: z^2 / (n + z^2)
    ],
)
def test_score_interval_agrees_with_known_values(gains: int, losses: int, rows: int, low: float, high: float) -> None:
    found = tango(gains, losses, rows)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("rows", [1, 2, 7, 20, 33])
@pytest.mark.parametrize("confidence", [0.95, 0.995])
def test_score_interval_never_falls_when_one_row_improves(rows: int, confidence: float) -> None:
    ends = {
        (gains, losses): tango(gains, losses, rows, confidence=confidence)
        for gains in range(rows + 1)
        for losses in range(rows + 1 - gains)
    }
    compared = 0
    for (gains, losses), before in ends.items():
        for better in ((gains + 1, losses), (gains, losses - 1)):
            if better in ends:
                assert ends[better].low >= before.low - 1e-9
                assert ends[better].high >= before.high - 1e-9
                compared += 1
    assert compared >= 2


def test_bootstrap_never_falls_when_one_row_improves() -> None:
    draw = Random(3)
    champion = [draw.random() for _ in range(60)]
    candidate = [draw.random() for _ in range(60)]
    before = bootstrap(champion, candidate)
    for row in range(0, 60, 7):
        better = list(candidate)
        better[row] = 1.0
        after = bootstrap(champion, better)
        assert after.low >= before.low
        assert after.high >= before.high
        assert after.difference > before.difference


@pytest.mark.parametrize("kind", [TaskKind.CLASSIFICATION, TaskKind.SCORE])
def test_the_95_percent_interval_covers_the_true_difference(kind: TaskKind) -> None:
    draw, hits, runs, rows = Random(11), 0, 300, 200
    for _ in range(runs):
        champion = [float(draw.random() < 0.85) for _ in range(rows)]
        candidate = [float(draw.random() < 0.80) for _ in range(rows)]
        found = paired_interval(kind, champion, candidate)
        hits += found.low <= -0.05 <= found.high
    assert 0.92 <= hits / runs <= 0.98


def test_the_same_table_gives_the_same_interval_and_other_lengths_are_refused() -> None:
    champion, candidate = [0.2, 0.9, 0.4] * 20, [0.3, 0.8, 0.5] * 20
    assert bootstrap(champion, candidate) == bootstrap(champion, candidate)
    with pytest.raises(ValueError, match="same rows"):
        paired_interval(TaskKind.SCORE, champion, candidate[1:])
    with pytest.raises(ValueError, match="at least one"):
        paired_interval(TaskKind.CLASSIFICATION, [], [])
