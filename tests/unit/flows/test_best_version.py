"""Which of the recent versions the candidate is compared with beside the champion."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perennial.domain.model import Workbench
from perennial.domain.words import TaskKind
from perennial.errors import RegistryError
from perennial.flows.train.measure import Exam
from perennial.gates.gate import GateSettings
from perennial.registry.rows import Alias
from perennial.trainers.bases import LocalBaseStore
from perennial.trainers.ewc_text import EwcText

evaluate = importlib.import_module("perennial.flows.train.evaluate")  # the package exports a function of that name
NOW, HOUR = datetime(2026, 11, 22, tzinfo=UTC), timedelta(hours=1)


def ports(reached: dict[str, float], *, rolled_back: tuple[str, ...] = (), put_back: tuple[str, ...] = ()) -> Any:
    """A deployment in which these versions served, newest first, with these accuracies in their manifests."""
    moves = [SimpleNamespace(alias=Alias.CANDIDATE, version="9.9.9", moved_at=NOW)]
    moves += [
        SimpleNamespace(alias=Alias.CHAMPION, version=version, moved_at=NOW + (HOUR if version in put_back else -HOUR))
        for version in reached
    ]
    releases = {
        name: SimpleNamespace(manifest={"metrics": {"topic.candidate": value}}) for name, value in reached.items()
    }
    return SimpleNamespace(
        ledger=SimpleNamespace(moves=lambda agent, limit: moves, version=lambda agent, version: releases.get(version)),
        buffer=SimpleNamespace(
            performance=lambda agent, last: [
                SimpleNamespace(version=version, rollback_triggered=version in rolled_back, update_timestamp=NOW)
                for version in reached
            ]
        ),
    )  # fmt: skip


@pytest.mark.req("J22")
def test_a_version_that_a_person_put_back_counts_again(
    exam: Exam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tasks" / "topic").mkdir(parents=True)
    monkeypatch.setattr(evaluate, "bundle_folder", lambda ports, agent, version: tmp_path)
    reached = {"1.0.2": 0.8, "1.0.1": 0.9}
    world = ports(reached, rolled_back=("1.0.1",), put_back=("1.0.1",))
    assert evaluate._with_best(world, exam, "1.0.2", exam.settings).best_version == "1.0.1"


@pytest.fixture
def exam(tmp_path: Path) -> Exam:
    return Exam(
        trainer=EwcText(), bench=Workbench(bases=LocalBaseStore(folder=tmp_path)), settings=GateSettings(window_versions=3),
        agent="scout", task="topic", kind=TaskKind.CLASSIFICATION, labels=("a", "b"), candidate=tmp_path, champion=tmp_path,
        holdout=(), batch=(),
    )  # fmt: skip


@pytest.mark.req("J22")
@pytest.mark.parametrize(
    ("reached", "rolled_back", "best"),
    [
        ({"1.0.2": 0.9, "1.0.1": 0.8}, (), None),  # the champion is the best
        ({"1.0.2": 0.8, "1.0.1": 0.85, "1.0.0": 0.82}, (), "1.0.1"),
        ({"1.0.2": 0.8, "1.0.1": 0.8}, (), None),  # no better: no second look
        ({"1.0.2": 0.8, "1.0.1": 0.95, "1.0.0": 0.85}, ("1.0.1",), "1.0.0"),  # production refused it
        ({"1.0.4": 0.8, "1.0.3": 0.8, "1.0.2": 0.81, "1.0.1": 0.99}, (), "1.0.2"),  # beyond the window
    ],
)
def test_the_best_of_the_window_is_asked(
    exam: Exam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reached: dict[str, float], rolled_back: tuple[str, ...],
    best: str | None,
) -> None:  # fmt: skip
    (tmp_path / "tasks" / "topic").mkdir(parents=True)
    monkeypatch.setattr(evaluate, "bundle_folder", lambda ports, agent, version: tmp_path)
    champion = next(iter(reached))
    found = evaluate._with_best(ports(reached, rolled_back=rolled_back), exam, champion, exam.settings)
    assert (found.best_version, found.best is not None) == (best or champion, best is not None)
    assert found.versions == min(3, len(reached) - len(rolled_back))


def test_a_version_that_cannot_be_fetched_is_said(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Path:
        raise RegistryError("the store is away")

    monkeypatch.setattr(evaluate, "bundle_folder", away)
    found = evaluate._with_best(ports({"1.0.1": 0.8, "1.0.0": 0.9}), exam, "1.0.1", exam.settings)
    assert (found.best, found.best_version) == (None, "1.0.0")
    assert "could not be fetched (RegistryError)" in found.best_problem
