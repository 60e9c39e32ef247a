"""Passwords and keys of the embedded stack: made once, kept in files that only their owner can read."""

from __future__ import annotations

import base64
import json
import os
import secrets as random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perennial.errors import RegistryError, StackError
from perennial.registry.keys import make_key_pair
from perennial.stack.files import read_json, write_private
from perennial.stack.home import Home


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Secrets:
    """Every secret of one home. ``repr`` is off: it must not reach a log."""

    superuser: str
    perennial_owner: str
    perennial_app: str
    perennial_admit: str
    airflow: str
    mlflow: str
    login_admin: str
    login_editor: str
    login_machine: str
    fernet_key: str
    jwt_secret: str
    session_secret: str
    signing_key_password: str

    def __repr__(self) -> str:
        return "Secrets(...)"

    def logins(self) -> dict[str, str]:
        """Airflow user name to password."""
        return {"admin": self.login_admin, "editor": self.login_editor, "machine": self.login_machine}


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


_MAKERS: dict[str, Callable[[], str]] = {
    "fernet_key": _fernet_key,
    "jwt_secret": lambda: random.token_urlsafe(64),
    "session_secret": lambda: random.token_urlsafe(48),
    "login_admin": lambda: random.token_urlsafe(12),
    "login_editor": lambda: random.token_urlsafe(12),
    "login_machine": lambda: random.token_urlsafe(24),
}


def read_or_make(home: Home) -> Secrets:
    """The secrets of a home; what is missing is made and written (0600) before it is used anywhere."""
    known = read_json(home.secrets_file)
    names = list(Secrets.__dataclass_fields__)
    full = {name: known.get(name) or _MAKERS.get(name, lambda: random.token_urlsafe(32))() for name in names}
    if full != known:
        write_private(home.secrets_file, json.dumps(full, indent=1))
    return Secrets(**full)


def signing_keys(home: Home, password: str) -> tuple[Path, Path]:
    """The private (encrypted PEM, EC P-256) and public key file for signing releases, made when they are missing.

    A private key is never replaced: it gives a missing public one again. StackError when the password does not open it.
    """
    private, public = home.keys / "signing.pem", home.keys / "signing.pub"
    if not (private.is_file() and public.is_file()):
        try:
            make_key_pair(private, public, password)
        except RegistryError as error:
            raise StackError(str(error)) from error
    return private, public
