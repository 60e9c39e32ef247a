"""Which versions may serve: those that the ledger let be registered, for exactly these bytes."""

from __future__ import annotations

import json
from pathlib import Path

from perennial.errors import PromotionRefused
from perennial.flows.ports import Ports
from perennial.registry.manifest import NAME, Manifest
from perennial.registry.permission import check_permission


def require_served_permission(ports: Ports, agent: str, version: str, folder: Path | None = None) -> None:
    """Raise PromotionRefused unless gates, and people where they were asked, had let this version through when it was registered.

    Judged as of the registration, so an approval that lapsed since takes nothing down and one that came later excuses nothing.
    ``folder``: the verified bundle, whose signed manifest names the approvals; without it the ledger's copy is read, which
    is enough before a step that reads no bytes. Three small queries; asked when a version is promoted or loaded, never when a
    request is answered.
    """
    release = ports.ledger.version(agent, version)
    if release is None or release.job_id is None:
        raise PromotionRefused(f"the ledger knows no job that made {agent} {version}; train and register it")
    record = release.manifest if folder is None else json.loads((folder / NAME).read_text(encoding="utf-8"))
    check_permission(
        release, Manifest.from_dict(record), ports.ledger.judgements(release.job_id),
        ports.ledger.decisions(job_id=release.job_id),
    )  # fmt: skip
