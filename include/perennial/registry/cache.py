"""Verified bundles on this machine: fetched once, verified again by every process, loaded from nowhere else."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from threading import Lock
from typing import Protocol

from perennial.errors import NotConfigured, UntrustedBundle
from perennial.registry.bundle import signature_path
from perennial.registry.rows import Release
from perennial.registry.signing import check_copy, verify_bundle

logger = logging.getLogger(__name__)

# What a verified folder looked like when its bytes were read: (path, size, mtime, ctime, inode) of every file.
_Look = tuple[tuple[str, int, int, int, int], ...]
_verified: dict[tuple[str, str], _Look] = {}
_guard = Lock()


def _new_guard() -> None:
    """A forked child may inherit the lock in its taken state, with nobody left to free it."""
    global _guard
    _guard = Lock()


os.register_at_fork(after_in_child=_new_guard)


class Releases(Protocol):
    """The part of the ledger that is needed here."""

    def version(self, agent: str, version: str) -> Release | None:
        """One release."""
        ...


class Shelf(Protocol):
    """The part of the model store that is needed here."""

    def fetch(self, agent: str, version: str, into: Path, *, digest: str | None = None) -> tuple[Path, Path]:
        """Copy a bundle and its signature into a folder, unverified."""
        ...


def fetch_verified(
    agent: str, version: str, *, ledger: Releases, store: Shelf, public_key: Path | None, into: Path
) -> Path:
    """The folder of one release, exactly as the ledger knows it, below ``into`` (a folder of this user alone).

    The first call on a machine fetches and verifies a private copy; the first call in each process verifies that copy
    again; later calls compare sizes, times and inodes only. A copy that went bad is thrown away and fetched anew,
    once. Raises UntrustedBundle when the release is unknown or its bytes do not agree, RegistryError when the store
    is away, NotConfigured without a verification key.
    """
    if public_key is None:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", "nothing is loaded unverified; `perennial up` makes the key")
    release = ledger.version(agent, version)
    if release is None:
        raise UntrustedBundle(f"the ledger knows no {agent} {version}; `perennial models {agent}` lists the releases")
    place = into / agent / f"{version}-{release.digest[:16]}" / "bundle"
    if place.is_dir():
        try:
            _check_again(place, public_key, release)
            return place
        except UntrustedBundle as error:
            logger.warning("the local copy of %s %s is bad and is fetched anew: %s", agent, version, error)
            _forget(place, release)
    _fetch(place, release, store, public_key, into)
    return place


def _check_again(place: Path, public_key: Path, release: Release) -> None:
    _check_private(place.parent)
    key, look = (str(place), release.digest), _look(place)
    with _guard:
        if _verified.get(key) == look:
            return
    check_copy(place, public_key, release)
    with _guard:
        _verified[key] = look


def _check_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UntrustedBundle(f"{folder.name!r} can be changed by others than its owner; the copy is not used")


def _look(place: Path) -> _Look:
    found = []
    for path in [*sorted(place.rglob("*")), signature_path(place)]:
        try:
            seen = path.lstat()
        except FileNotFoundError as error:
            raise UntrustedBundle(f"the local copy {place.parent.name!r} is not whole") from error
        found.append((str(path), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino))
    return tuple(found)


def _forget(place: Path, release: Release) -> None:
    with _guard:
        _verified.pop((str(place), release.digest), None)
    grave = place.parent.with_name(f".bad-{os.getpid()}-{place.parent.name}")
    try:
        os.rename(place.parent, grave)
    except FileNotFoundError:
        return  # another process was faster
    shutil.rmtree(grave, ignore_errors=True)


def _fetch(place: Path, release: Release, store: Shelf, public_key: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=into) as room:
        folder, signature = store.fetch(release.agent, release.version, Path(room), digest=release.digest)
        copy = verify_bundle(folder, signature, public_key, release, into=Path(room))
        copy.rename(copy.with_name("bundle"))
        if copy.name != "bundle":
            signature_path(copy).rename(copy.with_name("bundle.sig"))
        place.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.rename(copy.parent, place.parent)
        except OSError:
            _check_again(place, public_key, release)  # another process was first: its copy must be good
            return
    with _guard:
        _verified[(str(place), release.digest)] = _look(place)
