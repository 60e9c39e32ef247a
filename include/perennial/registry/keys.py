"""The pair of keys that signs and verifies releases."""

from __future__ import annotations

import os
from pathlib import Path

from perennial.errors import RegistryError


def make_key_pair(private_file: Path, public_file: Path, password: str) -> bool:
    """Write a new EC P-256 pair: the private key encrypted with the password and readable by its owner alone (0600).

    Returns False and leaves everything as it is when the private key is there already: replacing it would make every
    signed release unverifiable. RegistryError without a password.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not password:
        raise RegistryError("a signing key needs a password; set PERENNIAL_SIGNING_KEY_PASSWORD")
    if private_file.exists():
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )  # fmt: skip
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for path in (private_file, public_file):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # the public half first: a kill in between leaves no private key, so the next call starts over
    public_file.write_bytes(public)
    with open(os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    return True
