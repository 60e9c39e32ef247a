"""The pair of keys that signs and verifies releases."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from perennial.errors import RegistryError


def make_key_pair(private_file: Path, public_file: Path, password: str) -> bool:
    """Write a new EC P-256 pair: the private key encrypted with the password and readable by its owner alone (0600).

    P-256 because OpenSSF model-signing accepts NIST curves alone. Returns whether the pair is new: a private key is never replaced,
    since that would make every signed release unverifiable; it gives a missing public half again. Each half appears whole or not at
    all, so killed anywhere, or on a full disk, the same call completes the pair. RegistryError without a password, or when the
    public half is missing and the password does not open the private one.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not password:
        raise RegistryError("a signing key needs a password; set PERENNIAL_SIGNING_KEY_PASSWORD")
    for path in (private_file, public_file):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = False
    if not private_file.exists():
        public_file.unlink(missing_ok=True)  # of no pair any more
        secret = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )  # fmt: skip
        made = _write_new(private_file, secret)
    if not public_file.exists():
        public = public_half(private_file, password)
        if public is None:
            raise RegistryError(
                f"{private_file} cannot be opened with this password; correct it, or bring back {public_file.name} beside it"
            )
        _write_new(public_file, public)
    return made


def public_half(private_file: Path, password: str) -> bytes | None:
    """The public key, PEM, that belongs to a private one; None when there is none that the password opens."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        key = load_pem_private_key(private_file.read_bytes(), password.encode())
    except (FileNotFoundError, ValueError, TypeError):  # the words of the latter may hold what was read
        return None
    if not isinstance(key, EllipticCurvePrivateKey):
        return None
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _write_new(path: Path, content: bytes) -> bool:
    """Whether this call wrote the file: whole, on the disk, and only where none was."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True
