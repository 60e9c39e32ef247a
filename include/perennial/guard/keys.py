"""The deployment's secret for surrogates: without it nobody can test a guess against a redacted text."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from perennial.errors import GuardUnavailable
from perennial.settings import home_folder

VARIABLE = "PERENNIAL_REDACTION_KEY"
FILE = "redaction.key"


def deployment_key(home: Path | None = None) -> bytes:
    """The 32 bytes that choose surrogates: from PERENNIAL_REDACTION_KEY, else from ``redaction.key`` in the home folder.

    The file is made once (mode 0600); of several processes that try at the same time one wins and all read its bytes.
    Hosts that do not share a home folder need the variable, or the same person gets another surrogate on each host.
    Raises GuardUnavailable when the key can neither be read nor made.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return hashlib.sha256(given.encode()).digest()
    path = (home or home_folder()) / FILE
    try:
        if not path.exists():
            _make(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as problem:
        raise GuardUnavailable(
            f"the key of the surrogates in {path} cannot be read or made ({type(problem).__name__}); "
            f"make the folder writable or set {VARIABLE}"
        ) from problem
    if len(key) != 32:
        raise GuardUnavailable(
            f"{path} does not hold 32 bytes in hexadecimal; restore it from a backup or set {VARIABLE}"
        )
    return key


def _make(path: Path) -> None:
    """Write a fresh key under a name of our own, then link it into place: readers never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return  # another process was first; its key counts
    finally:
        draft.unlink(missing_ok=True)
