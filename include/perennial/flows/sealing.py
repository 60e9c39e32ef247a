"""Seals the audit, and keeps the heads of its chain outside the database."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from perennial.audit import verification
from perennial.audit.heads import Head, HeadFile, Signer, Worth, keep, worth
from perennial.audit.log import AuditLog
from perennial.audit.verification import Finding, Kind, Report
from perennial.flows.ports import Ports
from perennial.registry import keyring
from perennial.settings import Settings

logger = logging.getLogger(__name__)


def heads_file(settings: Settings) -> Path:
    """Where the heads are kept: ``audit/heads.jsonl`` in the home folder."""
    return settings.home / "audit" / "heads.jsonl"


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Rows chained now, and the newest kept head (None while nothing was ever sealed)."""

    rows: int
    head: Head | None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What verification saw, and the newest kept head with what it proves."""

    report: Report
    head: Head | None
    worth: Worth


def seal(ports: Ports) -> Sealed:
    """Chain everything that waits, batch by batch, and keep each batch's head.

    Runs each minute in ``harvest`` and from ``perennial audit seal``; may be killed and repeated anywhere. AuditBroken, before
    anything is sealed, when the chain does not contain the newest kept head.
    """
    settings = ports.settings
    secret = settings.signing_key_password.get_secret_value() if settings.signing_key_password is not None else None
    signer = Signer(settings.signing_key_file, secret) if settings.signing_key_file is not None else None
    file, rows = heads_file(settings), 0
    head = keep(file, ports.audit.seals, signer)
    while (made := ports.audit.seal()) is not None:
        rows += made.count
        head = keep(file, ports.audit.seals, signer)
    if rows:
        logger.info("%s audit rows sealed", rows)
    return Sealed(rows=rows, head=head)


def verify(ports: Ports, noted: Iterable[tuple[int, bytes]] = ()) -> Verified:
    """Walk the whole chain and compare it with the kept heads, and with ``noted`` ones (batch, hash) that somebody wrote down.

    AuditBroken when the file of heads itself is damaged.
    """
    return verify_chain(ports.audit, heads_file(ports.settings), ports.settings.verify_key_file, noted)


def verify_chain(audit: AuditLog, heads: Path, key: Path | None, noted: Iterable[tuple[int, bytes]] = ()) -> Verified:
    """``verify`` over one audit, one file of heads and one public key, with the retired keys beside it."""
    file = HeadFile(heads)  # before the view: a head kept later belongs to a batch that the view lacks
    head = file.newest()
    with audit.chain() as chain:
        report = verification.verify(chain, verification.merged(file, sorted(noted)))
    # a revoked key proves nothing any more, also of what it signed in its time
    retired = [(one.pem.encode(), one.retired_at) for one in keyring.read(key) if one.revoked_at is None] if key else []
    proof = worth(head, key, retired)
    if proof is Worth.FORGED and head is not None:
        text = f"the kept head of batch {head.batch} was not signed with our key; compare heads.jsonl with its copy"
        report = report.with_finding(Finding(kind=Kind.UNTRUSTED, batch=head.batch, text=text))
    return Verified(report=report, head=head, worth=proof)
