"""One call from judged components to a recorded version, safe to kill and repeat at any point."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from perennial.errors import UntrustedBundle, VersionExists
from perennial.registry.bundle import assemble, bundle_digest, check_bundle, signature_path
from perennial.registry.ledger import Ledger, following_version
from perennial.registry.manifest import Manifest
from perennial.registry.rows import Release
from perennial.registry.signing import sign
from perennial.registry.store import ModelStore

logger = logging.getLogger(__name__)

TRIES = 5


def make_release(
    *, ledger: Ledger, store: ModelStore, agent: str, job_id: UUID | str, part: str, tasks: Path,
    describe: Callable[[str, int], Manifest], gate_report: Mapping[str, Any], out: Path, key_file: Path,
    password: str | None, tags: Mapping[str, str],
) -> Release:  # fmt: skip
    """Assemble, sign, publish and record one version of an agent; returns its ledger row.

    ``describe(version, order)`` builds the manifest. A job releases once: killed anywhere and run again, the call
    goes on with the bundle that lies at ``out``, and a job that has released already gets its row back. When another
    job took the version or the place in the order meanwhile, the publication is withdrawn and made anew under the
    next version, at most five times. The last time a name is passed over that lies in the model store and not in the
    ledger: whoever published it died before it was recorded, and nobody else will ever free it.
    """
    for number in range(TRIES):
        done = ledger.version_of_job(job_id)
        if done is not None:
            return done
        try:
            if not _assembled(out):
                version = ledger.next_version(agent, part)
                if number == TRIES - 1:
                    version = _free(store, agent, version, part)
                assemble(tasks, describe(version, ledger.reserve_order()), gate_report, out)
            return _publish(ledger, store, out, key_file, password, tags)
        except VersionExists:
            _discard(out)
    raise VersionExists(f"{agent} was released by others {TRIES} times in a row; run the task again")


def _free(store: ModelStore, agent: str, version: str, part: str) -> str:
    while store.exists(agent, version):
        logger.warning("%s %s lies in the model store and not in the ledger; it is passed over", agent, version)
        version = following_version([version], part)
    return version


def _assembled(out: Path) -> bool:
    """Whether an earlier try left a whole bundle; a damaged one is thrown away."""
    if not out.exists():
        return False
    try:
        check_bundle(out)
    except UntrustedBundle as error:
        logger.warning("the bundle that an earlier try left is damaged and is made anew: %s", error)
        _discard(out)
        return False
    return True


def _discard(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    signature_path(out).unlink(missing_ok=True)


def _publish(
    ledger: Ledger, store: ModelStore, folder: Path, key_file: Path, password: str | None, tags: Mapping[str, str]
) -> Release:
    manifest = check_bundle(folder)
    signature = signature_path(folder)
    if not signature.is_file():  # a repeat keeps the signature that the store may already have
        sign(folder, key_file, password)
    digest = bundle_digest(folder)
    taken = ledger.version(manifest.agent, manifest.version)
    if taken is not None and taken.digest != digest:
        raise VersionExists(f"{manifest.agent} {manifest.version} was released by another job")
    published = store.publish(
        folder, signature, manifest, digest=digest, metrics=manifest.metrics, params=manifest.settings, tags=tags,
        job_id=manifest.job_id,
    )  # fmt: skip
    try:
        return ledger.record_version(manifest, digest=digest, uri=published.uri, mlflow_run_id=published.run_id)
    except VersionExists:
        store.withdraw(manifest.agent, manifest.version, digest)
        raise
