"""Public keys that signed earlier releases: good for what was registered before they were retired, and for nothing once revoked.

A file beside the public key, ``retired.json``; whoever serves needs both, and whoever can write the one can write the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from perennial.errors import RegistryError, UntrustedBundle

NAME = "retired.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RetiredKey:
    """One public key that signs no more. Times are the ledger's clock; ``revoked_at``: nothing that it signed is loaded."""

    pem: str
    retired_at: datetime
    actor: str
    reason: str
    revoked_at: datetime | None = None

    @property
    def id(self) -> str:
        """What people call it."""
        return key_id(self.pem.encode())


def _public(pem: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(pem)


def key_id(pem: bytes) -> str:
    """The first 16 hex digits of the sha256 over the public key (DER), as the heads of the audit name it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = _public(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def _hint(pem: bytes) -> str:
    """What OpenSSF model-signing writes into a signature to name its key: sha256, hex, over the public key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(_public(pem).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def ring_file(public_key: Path) -> Path:
    """Where the retired keys beside a public key are kept."""
    return public_key.with_name(NAME)


def read(public_key: Path) -> tuple[RetiredKey, ...]:
    """The retired keys, oldest first; none without a file. UntrustedBundle when the file is damaged: nothing is loaded then."""
    try:
        rows = json.loads(ring_file(public_key).read_text(encoding="utf-8"))["keys"]
        return tuple(_from_dict(row) for row in rows)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UntrustedBundle(
            f"{NAME} beside the public key is not readable ({type(error).__name__}); put its copy back from a backup"
        ) from error


def _from_dict(row: dict[str, Any]) -> RetiredKey:
    revoked = row.get("revoked_at")
    made = RetiredKey(
        pem=row["pem"], retired_at=datetime.fromisoformat(row["retired_at"]), actor=row["actor"], reason=row["reason"],
        revoked_at=datetime.fromisoformat(revoked) if revoked else None,
    )  # fmt: skip
    key_id(made.pem.encode())  # ValueError when it is no key
    return made


def write(public_key: Path, keys: Sequence[RetiredKey]) -> None:
    """Replace the file in one step."""
    rows = [
        {
            **asdict(key),
            "retired_at": key.retired_at.isoformat(),
            "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        }
        for key in keys
    ]
    file = ring_file(public_key)
    aside = file.with_name(f".{file.name}.{uuid4().hex}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        json.dump({"keys": rows}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, file)


def retire(public_key: Path, pem: str, *, at: datetime, actor: str, reason: str) -> RetiredKey:
    """Put a key that signs now into the list. One that a killed rotation put there signed until now, so its time is moved on."""
    keys = read(public_key)
    identity = key_id(pem.encode())
    made = RetiredKey(pem=pem, retired_at=at, actor=actor, reason=reason)
    write(public_key, [*(key for key in keys if key.id != identity), made])
    return made


def revoke(public_key: Path, identity: str, *, at: datetime) -> RetiredKey:
    """Refuse from now on whatever a retired key signed. RegistryError for the present key (rotate first) and for an unknown one."""
    if public_key.is_file() and key_id(public_key.read_bytes()) == identity:
        raise RegistryError(f"{identity} signs now; `perennial keys rotate` first, then revoke it")
    keys = read(public_key)
    found = [key for key in keys if key.id == identity]
    if not found:
        raise RegistryError(f"there is no retired key {identity}; `perennial keys list` lists them")
    revoked = replace(found[0], revoked_at=found[0].revoked_at or at)
    write(public_key, [revoked if key.id == identity else key for key in keys])
    return revoked


@contextmanager
def key_for(public_key: Path, hint: str, released_at: datetime | None) -> Iterator[Path]:
    """The file of the key that a signature names: the present one, or a retired one for what was registered in its time.

    UntrustedBundle for a revoked key, for a retired one after its time, and for a retired one where the time is not known (without
    the ledger: a thief of the old key could claim any). A key that nobody knows is left to the verification to refuse.
    """
    present = public_key.read_bytes()
    mine = [key for key in read(public_key) if _hint(key.pem.encode()) == hint]
    if any(key.revoked_at for key in mine):
        raise UntrustedBundle(
            f"its key {mine[0].id} was revoked; it is not loaded: roll back to a version of another key"
        )
    if not mine or _hint(present) == hint:
        yield public_key
        return
    if released_at is None or released_at > mine[0].retired_at:
        raise UntrustedBundle(
            f"its key {mine[0].id} was retired at {mine[0].retired_at:%Y-%m-%d %H:%M} UTC, and it is not known to have been registered "
            "before that; it is not loaded"
        )
    with tempfile.NamedTemporaryFile("w", suffix=".pub", encoding="utf-8") as file:
        file.write(mine[0].pem)
        file.flush()
        yield Path(file.name)
