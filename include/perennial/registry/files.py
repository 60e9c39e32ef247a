"""The closed list of files that a bundle may hold, their digests, and a private copy that nobody else can change."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from perennial.errors import UntrustedBundle

_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
_SUFFIXES = (".json", ".safetensors")  # formats that run no code
_ROOT_NAMES = ("MLmodel",)
_DEEPEST = 4
_BLOCK = 1 << 20


def listing(folder: Path, leave_out: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Relative paths of all files, sorted; UntrustedBundle for anything that a bundle may not hold.

    Refused: links, devices, hidden names (``.git`` among them), other suffixes than ``.json`` and ``.safetensors``,
    empty folders, and folders deeper than four.
    """
    try:
        found = sorted(_walk(folder, "", 0, leave_out))
    except OSError as error:
        raise UntrustedBundle(
            f"the bundle {folder.name!r} cannot be read ({type(error).__name__}); fetch it again"
        ) from error
    return tuple(found)


def _walk(folder: Path, prefix: str, depth: int, leave_out: frozenset[str] = frozenset()) -> Iterable[str]:
    if depth > _DEEPEST or folder.is_symlink():
        raise _refusal(prefix or folder.name, "is a link or lies too deep")
    entries = [entry for entry in os.scandir(folder) if f"{prefix}{entry.name}" not in leave_out]
    if not entries:
        raise _refusal(prefix or folder.name, "is an empty folder, which no signature covers")
    for entry in entries:
        path = f"{prefix}{entry.name}"
        if not _NAME.match(entry.name):
            raise _refusal(path, "has a name that a bundle may not hold")
        if entry.is_symlink():
            raise _refusal(path, "is a link")
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{path}/", depth + 1)
        elif not entry.is_file(follow_symlinks=False):
            raise _refusal(path, "is not a plain file")
        elif not entry.name.endswith(_SUFFIXES) and path not in _ROOT_NAMES:
            raise _refusal(path, "is not of a kind that a bundle may hold (.json, .safetensors, MLmodel)")
        else:
            yield path


def _refusal(path: str, problem: str) -> UntrustedBundle:
    return UntrustedBundle(f"{path[:120]!r} {problem}; nothing of this bundle is loaded")


def digest_of_file(path: Path) -> str:
    """sha256 of one plain file, hex; a link is an OSError."""
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_of_tree(folder: Path, paths: Iterable[str] | None = None) -> str:
    """sha256, hex, over one line ``<sha256>  <path>`` per file in the order of the paths (as sha256sum prints)."""
    total = hashlib.sha256()
    for path in listing(folder) if paths is None else sorted(paths):
        total.update(f"{digest_of_file(folder / path)}  {path}\n".encode())
    return total.hexdigest()


def private_copy(source: Path, into: Path | None = None, leave_out: frozenset[str] = frozenset()) -> Path:
    """Copy a bundle into a new folder that only this user can enter (0700), and return the copy.

    What is verified there is what is loaded: nobody can swap a file in between. Modes of the source do not count. The
    copy bears the source's name, its parent is the new folder; remove the parent when done. ``into``: where to make it.
    ``leave_out``: root files that are neither copied nor looked at.
    """
    paths = listing(source, leave_out)
    if into is not None:
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
    room = Path(tempfile.mkdtemp(prefix=".bundle-", dir=into))
    try:
        for path in paths:
            copy_file(source / path, room / source.name / path)
    except OSError as error:
        shutil.rmtree(room, ignore_errors=True)
        raise UntrustedBundle(f"the bundle {source.name!r} changed while it was copied; fetch it again") from error
    return room / source.name


def copy_file(source: Path, target: Path) -> None:
    """Copy one plain file (never through a link) to a new file, readable by this user alone."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as reader,
        open(os.open(target, flags, 0o600), "wb") as writer,
    ):
        shutil.copyfileobj(reader, writer, _BLOCK)


def sync(folder: Path) -> None:
    """Flush every file and folder below to the disk, so that the rename that follows publishes whole files."""
    for root, _, names in os.walk(folder):
        for path in [*(os.path.join(root, name) for name in names), root]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
