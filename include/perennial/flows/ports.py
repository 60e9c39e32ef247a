"""What the flows need from the outside, joined by ``wiring`` and handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from perennial.alerts.store import AlertStore
from perennial.audit.log import AuditLog
from perennial.domain.model import BaseStore, EmbeddingCache, Workbench
from perennial.domain.redaction import ScanCache
from perennial.fleet.loader import Fleet
from perennial.fleet.override_store import OverrideStore
from perennial.ingest.admit import Admission
from perennial.ingest.aside import AsideStore
from perennial.ingest.buffer import BufferStore
from perennial.ingest.job_log import Jobs
from perennial.ingest.redaction_tasks import RedactionTasks
from perennial.registry.ledger import Ledger
from perennial.registry.store import ModelStore
from perennial.retention.airflow_runs import RunHistory
from perennial.retention.store import RetentionStore
from perennial.rollout.store import RolloutStore
from perennial.rollout.targets import Target
from perennial.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Ports:
    """One deployment's adapters.

    ``admission`` is there only where the admit role's URL is; ``relay`` hands waiting announcements to the sinks. ``retention`` is
    absent in trials that keep everything, ``runs`` where no Airflow is, ``aside`` where nobody looks at what stands aside, ``alerts``
    where nobody is told, ``redaction_tasks`` where nobody is asked, ``scans`` where every text is looked at each time. ``fleet`` gives the
    agents as they count now, with the ``overrides`` that hold.
    """

    settings: Settings
    fleet: Callable[[], Fleet]
    buffer: BufferStore
    jobs: Jobs
    relay: Callable[[], int]
    admission: Admission | None
    ledger: Ledger
    models: ModelStore
    audit: AuditLog
    rollouts: RolloutStore
    targets: Mapping[str, Target]
    bases: BaseStore
    embeddings: EmbeddingCache | None
    retention: RetentionStore | None = None
    runs: RunHistory | None = None
    aside: AsideStore | None = None
    alerts: AlertStore | None = None
    overrides: OverrideStore | None = None
    redaction_tasks: RedactionTasks | None = None
    scans: ScanCache | None = None

    def with_fleet_read(self) -> Ports:
        """The same ports with the fleet as it is now, read once. For what goes over all agents: asking for the fleet reads every file."""
        fleet = self.fleet()
        return replace(self, fleet=lambda: fleet)

    @property
    def bench(self) -> Workbench:
        """What a trainer may use."""
        return Workbench(
            bases=self.bases, embeddings=self.embeddings, allow_hub=self.settings.allow_hub,
            run_scripts=self.settings.run_scripts,
        )  # fmt: skip

    @property
    def work(self) -> Path:
        """Folder of the running jobs' files; shared by the workers of a deployment."""
        return self.settings.home / "work"
