"""A new signing key; the old one keeps counting for what was registered before, until it is revoked."""

from __future__ import annotations

import os
from pathlib import Path

from perennial.audit.once import append_once
from perennial.errors import NotConfigured, RegistryError
from perennial.flows.ports import Ports
from perennial.registry import keyring
from perennial.registry.keys import make_key_pair, public_half


def rotate(ports: Ports, *, actor: str, reason: str) -> tuple[str, str]:
    """Sign with a new key from now on; ids of the old and the new one. Runs where the private key lies, from the command line.

    The new pair is made beside the old one first; then the old public key is retired as of now, on the ledger's clock; then the new pair
    takes its place. Killed anywhere, run it again: it goes on with the pair that is there, or makes another one when that is none. In
    between nothing signs or verifies that should not: what a killed rotation leaves fails closed. RegistryError while a training runs,
    since it may register with the old key a moment later.
    """
    if not actor.strip() or not reason.strip():
        raise RegistryError("a rotation needs the name of who decides, and a reason")
    private, public, password = _files(ports)
    busy = ports.buffer.running()
    if busy:
        raise RegistryError(f"{', '.join(busy)} trains and may register with the present key; rotate when it is done")
    at = ports.ledger.now()
    fresh_private, fresh_public = _beside(private), _beside(public)
    if not _is_pair(fresh_private if fresh_private.is_file() else private, fresh_public, password):
        for half in (fresh_private, fresh_public):  # half-made, or nothing yet; it never signed anything
            half.unlink(missing_ok=True)
        make_key_pair(fresh_private, fresh_public, password)
    old = keyring.retire(public, public.read_text(encoding="utf-8"), at=at, actor=actor, reason=reason).id
    if fresh_private.is_file():
        os.replace(fresh_private, private)
    new = keyring.key_id(fresh_public.read_bytes())
    # before the last step: killed after it, nothing would say that there was a rotation
    append_once(
        ports.audit, actor=actor, action="key_rotated", agent="", subject=new, detail={"retired": old, "why": reason}
    )
    os.replace(fresh_public, public)
    return old, new


def _is_pair(private: Path, public: Path, password: str) -> bool:
    """Whether a public key belongs to a private one that can be opened."""
    if not public.is_file():
        return False
    half = public_half(private, password)
    return half is not None and keyring.key_id(half) == keyring.key_id(public.read_bytes())


def _beside(file: Path) -> Path:
    return file.with_name(f".next-{file.name}")


def _files(ports: Ports) -> tuple[Path, Path, str]:
    settings = ports.settings
    if settings.signing_key_file is None or settings.verify_key_file is None or settings.signing_key_password is None:
        raise NotConfigured(
            "PERENNIAL_SIGNING_KEY_FILE",
            "keys are rotated where releases are signed; set it, its password and PERENNIAL_VERIFY_KEY_FILE",
        )
    return settings.signing_key_file, settings.verify_key_file, settings.signing_key_password.get_secret_value()


def revoke(ports: Ports, identity: str, *, actor: str, reason: str) -> keyring.RetiredKey:
    """Load nothing any more that this retired key signed; audited. RegistryError for the present key, an unknown one, or no reason."""
    if not actor.strip() or not reason.strip():
        raise RegistryError("a revocation needs the name of who decides, and a reason")
    if ports.settings.verify_key_file is None:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", "retired keys are listed beside it")
    found = keyring.revoke(ports.settings.verify_key_file, identity, at=ports.ledger.now())
    ports.audit.append(actor=actor, action="key_revoked", subject=identity, detail={"why": reason})
    return found
