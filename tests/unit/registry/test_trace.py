"""Releases from before the ledger kept examples get them from their bundles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.words import State
from perennial.errors import RegistryError, StoreError
from perennial.flows import trace
from perennial.ingest.results import KnownRow
from perennial.registry.bundle import assemble
from perennial.registry.manifest import Manifest
from perennial.registry.memory import MemoryLedger
from tests.unit.registry.samples import REPORT, components, manifest


@pytest.mark.req("K57", "J87")
def test_older_releases_are_noted_once_with_the_tasks_that_the_buffer_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, lost, judge = (uuid4() for _ in range(3))
    ledger, candidate = MemoryLedger(), components(tmp_path / "candidate")
    made = manifest(candidate, examples=[str(known), str(lost)], replayed=[], holdout=[str(judge)])
    folder = assemble(candidate / "tasks", made, REPORT, tmp_path / "release")
    ledger.record_version(Manifest.read(folder), digest="a", uri="", mlflow_run_id=None)
    older = ledger.version("scout", "1.0.0")
    assert older is not None
    dict.__setitem__(older.manifest, "recipe", {})  # type: ignore[arg-type]  # as releases from before were recorded

    def rows_by_id(ids: list[UUID]) -> dict[UUID, KnownRow]:
        row = TrainingRow(example_id=known, task="news", text="Rain.", label="world")
        judged = TrainingRow(example_id=judge, task="news", text="Snow.", label="world")
        rows = {known: row, judge: judged}
        return {
            one: KnownRow(state=State.TRAINED, source="example", priority=0, row=rows[one])
            for one in ids
            if one in rows
        }

    ports: Any = SimpleNamespace(
        ledger=ledger, buffer=SimpleNamespace(rows_by_id=rows_by_id, example=lambda identity: None)
    )
    monkeypatch.setattr(trace, "bundle_folder", lambda ports, agent, version: folder)
    assert trace.fill(ports, "scout") == {"1.0.0": 3}
    assert trace.fill(ports, "scout") == {}
    found = {(use.task, use.role.value, use.example_id) for use in trace.trace_version(ports, "scout", "1.0.0")}
    assert found == {("news", "new", known), ("", "new", lost), ("news", "holdout", judge)}
    traced = trace.trace_example(ports, known)
    assert (traced.state, traced.agent, [use.version for use in traced.uses]) == ("unknown", "scout", ["1.0.0"])
    with pytest.raises(StoreError, match="no example"):
        trace.trace_example(ports, uuid4())
    with pytest.raises(RegistryError, match=r"no version 9\.0\.0"):
        trace.trace_version(ports, "scout", "9.0.0")
