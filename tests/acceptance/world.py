"""One whole deployment without Airflow: real PostgreSQL, real models, real signatures; MLflow's twin on a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from perennial.audit.log import PostgresAuditLog
from perennial.domain.job import BatchRef, JobRequest
from perennial.domain.words import Mode, Reason
from perennial.fleet import loader
from perennial.flows import fleet_sync, rollout, train
from perennial.flows.ports import Ports
from perennial.ingest.admit import Admission
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.job_log import JobLog, relay_outbox
from perennial.registry.folder_store import FolderStore
from perennial.registry.keys import make_key_pair
from perennial.registry.ledger import PostgresLedger
from perennial.retention.store import PostgresRetention
from perennial.rollout.store import PostgresRollouts
from perennial.rollout.targets import FolderTarget
from perennial.settings import Settings
from perennial.storage.database import Database as Pool
from perennial.storage.embeddings import PostgresEmbeddings
from perennial.trainers.bases import LocalBaseStore
from tests.postgres_fixture import Database

FLEET = """
from perennial.domain.words import TaskKind
from perennial.fleet import TRUSTED, Agent, Gates, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="scout", owner="tests", trainer=EwcText(), max_buffer_size=20000,
    tasks=(
        Task(name="news_classification"),
        Task(name="sentiment", labels=("negative", "neutral", "positive")),
    ),
    selection=Selection(
        batch=500, replay=120, holdout_share=0.35, holdout_max=400,
        trusted_sources=(*TRUSTED, "*/intern"),  # no cap keeps the intern's rows from the gates
    ),
    gates=Gates(min_holdout=40),
    rollout=Rollout(step_seconds=0.0, min_samples=5),
)
"""


@dataclass
class World:
    """A deployment in a folder and a database, and the steps that Airflow would make."""

    ports: Ports
    runs: int = 0

    def claim(
        self, *, reason: Reason = Reason.REQUEST, mode: Mode = Mode.AUTO, run_id: str | None = None
    ) -> BatchRef | None:
        """Admit and claim, as the first two tasks do."""
        self.runs += 1
        train.admit(self.ports, "scout")
        request = JobRequest(agent="scout", run_id=run_id or f"run-{self.runs}", reason=reason, mode=mode)
        return train.claim(self.ports, request)

    def learn(self, ref: BatchRef) -> dict[str, Any]:
        """Everything between the claim and the gate; returns the gate's answer."""
        train.validate(self.ports, ref)
        train.redact(self.ports, ref)
        for task in train.select(self.ports, ref):
            train.train(self.ports, ref, task)
        train.evaluate(self.ports, ref)
        return train.gate(self.ports, ref)

    def release(self, ref: BatchRef, verdict: dict[str, Any], *, approve: str | None = None) -> dict[str, Any]:
        """What the run does with the verdict."""
        if verdict["action"] == "approve" and approve:
            train.record_decision(self.ports, ref, True, approve, "looks right")
        if verdict["action"] == "pass" or approve:
            train.register(self.ports, ref)
            return train.settle(self.ports, ref, "registered")
        return train.settle(self.ports, ref, "held")

    def train_once(self, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A whole training; a verdict that needs a person is approved."""
        ref = self.claim(**how)
        assert ref is not None
        verdict = self.learn(ref)
        return verdict, self.release(ref, verdict, approve="editor" if verdict["action"] == "approve" else None)

    def promote(self) -> dict[str, Any]:
        """A rollout without traffic: straight to full."""
        self.runs += 1
        ref = rollout.verify(self.ports, "scout", f"rollout-{self.runs}")
        assert ref is not None
        rollout.shadow(self.ports, ref)
        return rollout.full(self.ports, ref)


class ReadBefore(PostgresEmbeddings):
    """The deployment's embeddings; texts that another test of this process had read are brought in from there, not encoded again.

    Most tests begin with the same articles, and a third of their time went into reading them.
    """

    _known: ClassVar[dict[tuple[str, str], bytes]] = {}

    def get(self, encoder: str, keys: Sequence[str]) -> dict[str, bytes]:
        found = super().get(encoder, keys)
        brought = {key: self._known[encoder, key] for key in keys if key not in found and (encoder, key) in self._known}
        super().put(encoder, brought)
        return found | brought

    def put(self, encoder: str, values: Mapping[str, bytes]) -> None:
        super().put(encoder, values)
        self._known.update({(encoder, key): vector for key, vector in values.items()})


def make_world(database: Database, folder: Path, declared: str = FLEET, *, read_before: bool = False) -> World:
    """A fresh deployment with one agent, ``scout``, whose fleet file is ``declared``."""
    fleet = folder / "fleet"
    fleet.mkdir(parents=True)
    (fleet / "scout.py").write_text(declared)
    private, public = folder / "keys" / "signing.pem", folder / "keys" / "verify.pem"
    make_key_pair(private, public, "test-password")
    settings = Settings(
        home=folder, fleet_folder=fleet, signing_key_file=private, signing_key_password="test-password",  # type: ignore[arg-type]
        verify_key_file=public,
    )  # fmt: skip
    pool = Pool(database.app)
    ports = Ports(
        settings=settings, fleet=partial(loader.load, fleet), buffer=PostgresBuffer(pool),
        jobs=JobLog(pool), relay=partial(relay_outbox, pool, ()),
        admission=Admission(Pool(database.admit, max_size=2)), ledger=PostgresLedger(pool),
        models=FolderStore(folder / "models"), audit=PostgresAuditLog(pool), rollouts=PostgresRollouts(pool),
        targets={"folder": FolderTarget(folder / "serving")}, bases=LocalBaseStore(folder=folder / "bases"),
        embeddings=(ReadBefore if read_before else PostgresEmbeddings)(pool),
        retention=PostgresRetention(pool, Pool(database.admit, max_size=2)),
    )  # fmt: skip
    fleet_sync.sync(ports)
    return World(ports)


def rewind(ref: BatchRef) -> BatchRef:
    """The claim of the attempt before this one: what a revived zombie would hold."""
    return replace(ref, attempt=ref.attempt - 1)
