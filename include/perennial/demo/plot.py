"""Accuracy over time with the versions marked, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answered request: seconds since the start, and whether it was right."""

    second: float
    right: bool
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Something that happened, for the picture."""

    second: float
    text: str
    good: bool = True


def rolling(answers: Sequence[Answer], window: int = 100) -> tuple[list[float], list[float]]:
    """Seconds and the share of right answers among the last ``window``.

    >>> rolling([Answer(second=i, right=i % 2 == 0, version="1") for i in range(4)], window=2)[1]
    [1.0, 0.5, 0.5, 0.5]
    """
    xs, ys = [], []
    for index, answer in enumerate(answers):
        recent = answers[max(0, index + 1 - window) : index + 1]
        xs.append(answer.second)
        ys.append(sum(item.right for item in recent) / len(recent))
    return xs, ys


def draw(path: Path, answers: Sequence[Answer], marks: Sequence[Mark], *, title: str) -> Path:
    """Write the picture; needs no screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 5.2), dpi=120, layout="constrained")
    xs, ys = rolling(answers)
    axes.plot(xs, ys, color="#1f77b4", linewidth=1.8, label="share of right answers, last 100 requests")
    for level, mark in enumerate(marks):
        colour = "#2a7f3f" if mark.good else "#b3261e"
        axes.axvline(mark.second, color=colour, linewidth=1.0, linestyle="--", alpha=0.8)
        axes.annotate(
            mark.text, (mark.second, 0.02 + 0.07 * (level % 5)), rotation=0, fontsize=8, color=colour,
            xytext=(4, 0), textcoords="offset points",
        )  # fmt: skip
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, max([*xs, *(mark.second for mark in marks), 1.0]) * 1.08)
    axes.set_xlabel("seconds since the story began")
    axes.set_ylabel("right answers")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower right", fontsize=8)  # beside the lines, never over them
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path
