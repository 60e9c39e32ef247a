"""One deployment in memory with a judged candidate, for tests of what people and gates permit: real bytes, real signatures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import TrainingRow
from perennial.domain.job import BatchRef, JobRequest
from perennial.domain.words import Mode, Reason
from perennial.fleet import loader
from perennial.flows import train
from perennial.flows.ports import Ports
from perennial.flows.workspace import Workspace
from perennial.ingest.memory import MemoryBuffer
from perennial.registry.bundle import content_digest
from perennial.registry.folder_store import FolderStore
from perennial.registry.memory import MemoryLedger
from perennial.rollout.memory import MemoryRollouts
from perennial.settings import Settings
from tests.unit.registry.samples import PASSWORD, Keys, components

FLEET = """
from perennial.fleet import Agent, Gates, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(name="scout", owner="tests", trainer=EwcText(), tasks=(Task(name="news"), Task(name="quality")),
              gates=Gates({gates}))
"""


class Desk:
    """Ports in memory, one clock, and the steps around a decision. ``gates`` is the text of the agent's gate settings."""

    def __init__(self, room: Path, keys: Keys, gates: str = "") -> None:
        self.room, self.keys, self.now = room, keys, datetime.now(UTC)
        (room / "fleet").mkdir()
        (room / "fleet" / "scout.py").write_text(FLEET.format(gates=gates))
        self.ledger = MemoryLedger(clock=lambda: self.now)
        self.ports: Any = Ports(
            settings=Settings(
                home=room, fleet_folder=room / "fleet", signing_key_file=keys.private, signing_key_password=PASSWORD,  # type: ignore[arg-type]
                verify_key_file=keys.public, airflow_url="http://airflow.test",
            ),
            fleet=partial(loader.load, room / "fleet"), buffer=MemoryBuffer(), jobs=SimpleNamespace(),  # type: ignore[arg-type]
            relay=lambda: 0, admission=None, ledger=self.ledger, models=FolderStore(room / "models"),
            audit=MemoryAuditLog(), rollouts=MemoryRollouts(), targets={}, bases=SimpleNamespace(), embeddings=None,  # type: ignore[arg-type]
        )  # fmt: skip

    def claim(self, run_id: str = "run-1", *, by: str = "perennial", **wish: Any) -> BatchRef:
        """A claimed attempt of a run that ``by`` asked for; again for the same run it is the next attempt."""
        request = JobRequest(agent="scout", run_id=run_id, requested_by=by, **wish)
        job_id = self.ports.buffer.open_job(request)
        attempt = self.ports.buffer.start_attempt(job_id, 3600.0)
        assert attempt is not None
        return BatchRef(
            agent="scout", job_id=job_id, attempt=attempt, mode=Mode.ONLINE, reason=Reason.THRESHOLD, count=1
        )

    def judge(self, ref: BatchRef, action: str = "approve", *, like: BatchRef | None = None) -> str:
        """A candidate (the same bytes as another attempt's with ``like``) and the gates' word on it; its digest."""
        space = Workspace.of(self.ports.work, ref)
        if like is None:
            components(space.root / "candidate")
        else:
            shutil.copytree(Workspace.of(self.ports.work, like).root / "candidate", space.root / "candidate")
        digest = content_digest(space.root / "candidate")
        champion = self.ledger.versions("scout")[0].version if self.ledger.versions("scout") else None
        row = TrainingRow(example_id=uuid4(), task="news", text="A secret sentence.", label="world")
        for part in ("new", "replay", "holdout"):
            space.write_rows(f"news/{part}.json", [row] if part == "new" else [])
        space.write_json("select.json", {"tasks": {"news": {"new_labels": [], "labels": ["sports", "world"]}}})
        space.write_json("news/trained.json", {"seconds": 1.0, "metrics": {}, "from": champion})
        space.write_json("news/details.json", {"seed": 7, "threads": 1, "device": "cpu", "machine": {}})
        summary = {"champion": None, "candidate": 0.9, "rows": 40, "corrections": 0}
        space.write_json(
            "evaluation.json",
            {
                "champion": champion,
                "tasks": {"news": {"kind": "classification", "summary": summary}},
                "content_digest": digest,
                "unchanged": ["quality"] if champion else [],
            },
        )
        report = {
            "action": action, "summary": f"{action}: sign_off: a major version", "champion": champion,
            "new_labels": {"news": ["weather"]}, "not_measured": [],
            "verdicts": [{"gate": "sign_off", "action": action, "reason": "a major version needs a person", "evidence": {}}],
            "tables": [],
        }  # fmt: skip
        stored = self.ledger.add_gate_report(
            agent="scout", job_id=ref.job_id, attempt=ref.attempt, content_digest=digest, action=action, report=report
        )
        space.write_json("gate_report.json", stored)
        return digest

    def waiting(self, run_id: str = "run-1", *, by: str = "perennial") -> BatchRef:
        """A candidate about which a person was asked."""
        ref = self.claim(run_id, by=by)
        self.judge(ref)
        assert train.question(self.ports, ref, run_id)["granted"] is False
        return ref

    def answer(self, ref: BatchRef, actor: str, *, approved: bool = True, **more: Any) -> dict[str, Any]:
        """What the operator does with a person's answer."""
        return train.record_decision(self.ports, ref, approved, actor, "", **more)

    def later(self, hours: float) -> None:
        """Let the ledger's clock go on."""
        self.now += timedelta(hours=hours)

    def with_gates(self, gates: str) -> None:
        """Change the agent's gate settings, as a deploy does."""
        (self.room / "fleet" / "scout.py").write_text(FLEET.format(gates=gates))

    def other_bytes(self, ref: BatchRef) -> None:
        """Change the candidate after it was judged."""
        place = Workspace.of(self.ports.work, ref).root / "candidate" / "tasks" / "news" / "head.safetensors"
        place.write_bytes(b"other bytes")

    def zombie(self, ref: BatchRef) -> BatchRef:
        """The claim of the attempt before."""
        return replace(ref, attempt=ref.attempt - 1)
