"""Heads of the chain, kept outside PostgreSQL: without one, whoever owns the database can cut the chain's end or write it anew.

A file of lines, one per batch, each signed with the key that signs releases. Copy it to where the database's owner cannot
write (another host, a write-once store): who owns database and file together can take away the ends of both.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from perennial.audit.chain import GENESIS, Seal, seal_hash
from perennial.errors import AuditBroken, NotConfigured

_TAG = b"perennial audit head 1\n"
_TAIL = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """One seal as it was seen when it was made. ``key`` identifies the public key (sha256, 16 hex digits); without a signature both
    are empty."""

    batch: int
    hash: str
    rows: int
    last_id: int
    sealed_at: str
    key: str = ""
    signature: str = ""

    @property
    def payload(self) -> bytes:
        """What is signed."""
        record = {name: value for name, value in asdict(self).items() if name != "signature"}
        return _TAG + json.dumps(record, sort_keys=True).encode()


class Worth(StrEnum):
    """What the newest kept head proves."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"  # kept where no signing key was set
    UNCHECKED = "unchecked"  # signed, but no public key is set here
    FORGED = "forged"
    NONE = "none"  # no head is kept


class Signer:
    """Signs heads: ECDSA with SHA-256 (FIPS 186-5) with the key that signs releases, which is opened on first use."""

    def __init__(self, key_file: Path, password: str | None) -> None:
        self._file, self._password = key_file, password

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return load_pem_private_key(self._file.read_bytes(), self._password.encode() if self._password else None)
        except (OSError, ValueError, TypeError) as error:
            problem = f"it or its password cannot be used ({type(error).__name__}); heads are signed with it"
            raise NotConfigured("PERENNIAL_SIGNING_KEY_FILE", problem) from error

    def sign(self, head: Head) -> Head:
        """The head with its key and signature."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        named = replace(head, key=_key_id(self._key.public_key()))
        made = self._key.sign(named.payload, ec.ECDSA(hashes.SHA256()))
        return replace(named, signature=base64.b64encode(made).decode())


def worth(head: Head | None, public_key_file: Path | None, retired: Sequence[tuple[bytes, datetime]] = ()) -> Worth:
    """What this head proves to the holder of the public key; NotConfigured when that file is no key.

    ``retired`` are public keys (PEM) that signed earlier, each with the time until which it did.
    """
    if head is None:
        return Worth.NONE
    if not head.signature:
        return Worth.UNSIGNED
    if public_key_file is None:
        return Worth.UNCHECKED
    try:
        present = public_key_file.read_bytes()
    except OSError as error:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", f"it is not a public key ({type(error).__name__})") from error
    keys = [present, *(pem for pem, until in retired if _sealed_by(head, until))]
    return Worth.SIGNED if any(_genuine(head, pem) for pem in keys) else Worth.FORGED


def _sealed_by(head: Head, until: datetime) -> bool:
    """Whether the head says that it was sealed by then; what it says is part of what was signed."""
    try:
        return datetime.fromisoformat(head.sealed_at) <= until
    except (ValueError, TypeError):
        return False


def _genuine(head: Head, pem: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key: Any = load_pem_public_key(pem)
    except ValueError as error:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", f"it is not a public key ({type(error).__name__})") from error
    try:
        key.verify(base64.b64decode(head.signature, validate=True), head.payload, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return head.key == _key_id(key)


def _key_id(public_key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:16]


class HeadFile:
    """The file of kept heads, as it was when this was made: what is appended later is not read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size if path.is_file() else 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Batch and hash of each, in order; AuditBroken for a line that is none."""
        if not self._size:
            return
        before, read = 0, 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                read += len(line)
                if read > self._size or not line.endswith(b"\n"):
                    return  # a writer was killed in this line; the next one writes it again
                head = _parsed(line, self._path, number)
                if head.batch <= before:
                    raise AuditBroken(
                        f"{self._path.name} line {number} is out of order; compare the file with its copy"
                    )
                before = head.batch
                yield head.batch, bytes.fromhex(head.hash)

    def newest(self) -> Head | None:
        """The last whole line."""
        if not self._size:
            return None
        with self._path.open("rb") as file:
            file.seek(max(0, self._size - _TAIL))
            whole, _, _ = file.read(min(_TAIL, self._size)).rpartition(b"\n")
        line = whole.rpartition(b"\n")[2]
        return _parsed(line, self._path, -1) if line else None


def _parsed(line: bytes, path: Path, number: int) -> Head:
    try:
        head = Head(**json.loads(line))
        bytes.fromhex(head.hash)
        if not isinstance(head.batch, int) or head.batch < 1:
            raise ValueError(head.batch)
    except (ValueError, TypeError) as error:
        where = f"line {number}" if number > 0 else "the last line"
        raise AuditBroken(
            f"{path.name}: {where} is no head ({type(error).__name__}); compare the file with its copy"
        ) from error
    return head


def keep(path: Path, seals: Callable[[int], Sequence[Seal]], signer: Signer | None) -> Head | None:
    """Append the heads of what was sealed since the newest kept one, and return the newest kept.

    ``seals`` gives the next seals after a batch. It is asked with the file locked, so that writers at the same time see each other's
    work. What is kept is not kept twice; a line that a killed writer left half is taken away. AuditBroken, and nothing written,
    when the chain does not contain the newest kept head or does not follow from it. Runs wherever sealing runs.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(_whole(file))
        file.seek(0, os.SEEK_END)
        kept = HeadFile(path).newest()
        before = _same(kept, seals(kept.batch - 1)) if kept else None
        while fresh := seals(before.batch if before else 0):
            for seal in fresh:
                before = _next(before, seal)
                head = _head(seal)
                kept = signer.sign(head) if signer is not None else head
                file.write(json.dumps(asdict(kept)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return kept


def _whole(file: Any) -> int:
    """Length of the file's whole lines."""
    end = int(file.seek(0, os.SEEK_END))
    start = max(0, end - _TAIL)
    file.seek(start)
    rest = file.read()
    return end - (len(rest) - int(rest.rfind(b"\n")) - 1)


def _head(seal: Seal) -> Head:
    return Head(
        batch=seal.batch, hash=seal.hash.hex(), rows=seal.total, last_id=seal.last_id, sealed_at=seal.sealed_at.isoformat()
    )  # fmt: skip


def _same(kept: Head, seals: Sequence[Seal]) -> Seal:
    """The chain's seal of the newest kept head."""
    if not seals:
        raise AuditBroken(
            f"the audit was cut: batch {kept.batch} was sealed and kept, and is gone; run `perennial audit verify`"
        )
    if (seals[0].batch, seals[0].hash.hex()) != (kept.batch, kept.hash):
        raise AuditBroken(
            f"the audit was rewritten: batch {kept.batch} is not the one that was kept; run `perennial audit verify`"
        )
    return seals[0]


def _next(before: Seal | None, seal: Seal) -> Seal:
    """The seal, if it follows from the one before."""
    follows = (before.batch + 1, before.hash) if before else (1, GENESIS)
    if (seal.batch, seal.previous) != follows or seal_hash(seal) != seal.hash:
        raise AuditBroken(
            f"batch {seal.batch} of the audit does not follow from the one before; run `perennial audit verify`"
        )
    return seal
