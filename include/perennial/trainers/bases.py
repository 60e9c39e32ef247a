"""Where encoders are kept once, and a small memory of embeddings: the local halves of the trainers' workbench."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from uuid import uuid4

from perennial.errors import TrainingError, UntrustedBundle

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_BLOCK = 1 << 20

# What a checked folder looked like when its bytes were read: (name, size, mtime, ctime, inode) of each file.
_Look = tuple[tuple[str, int, int, int, int], ...]
_checked: dict[Path, _Look] = {}
_checked_lock = Lock()


def _renew_lock() -> None:
    """A forked child may inherit the lock in its taken state, with nobody left to free it."""
    global _checked_lock
    _checked_lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def folder_digest(folder: Path) -> str:
    """sha256 hex over the sorted lines ``relative path NUL sha256 of the bytes`` of all files in a folder.

    Names and contents count; times, owners, mode bits and empty folders do not.
    """
    total = hashlib.sha256()
    for path in _files(folder):
        total.update(_line(path.relative_to(folder), _file_digest(path)))
    return total.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalBaseStore:
    """Encoders as content-addressed folders below one folder of a local or shared disk (a ``BaseStore``).

    ``put`` copies into a hidden folder, syncs, and renames, so a reader sees a whole base or none; any number of
    processes may put the same base at once. ``path`` reads every byte the first time in a process, and again whenever
    a file's size, times or inode changed.
    """

    folder: Path

    def put(self, folder: Path) -> str:
        """Store the files of a folder (idempotent) and return their digest; a TrainingError when there is none."""
        digest = folder_digest(folder)
        if not _files(folder):
            raise TrainingError(
                f"the encoder folder {folder.name!r} holds no file; point the setting `encoder` at a model"
            )
        if (self.folder / digest).is_dir():
            os.utime(self.path(digest))  # retention takes away what nobody put for long and no release names
            return digest
        staging = self.folder / f".staging-{uuid4().hex}"
        try:
            copied = _copy(folder, staging)
            try:
                os.rename(staging, self.folder / copied)
            except OSError:
                # another process was first: its copy must be good, else say so
                self.path(copied)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _sync_folder(self.folder)
        return copied

    def path(self, digest: str) -> Path:
        """The local folder of a digest; UntrustedBundle when it is missing or its bytes are not those of the digest."""
        if not _DIGEST.match(digest):
            raise UntrustedBundle(
                "a base is named by 64 hex digits; the component that names this one was not written by Perennial"
            )
        folder = (self.folder / digest).absolute()
        if not folder.is_dir():
            raise UntrustedBundle(
                f"base {digest[:12]} is not in the store; restore it there, or roll back to a version that does not need it"
            )
        look = _look(folder)
        with _checked_lock:
            if _checked.get(folder) == look:
                return folder
        if folder_digest(folder) != digest:
            raise UntrustedBundle(
                f"the files of base {digest[:12]} are not those that its digest names; delete that folder and restore it"
            )
        with _checked_lock:
            _checked[folder] = look
        return folder


class MemoryEmbeddings:
    """An ``EmbeddingCache`` in this process: the latest ``limit`` vectors (384 floats are 1.5 kB each), safe for
    threads.
    """

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._values: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, encoder: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of ``keys`` that are known."""
        found = {}
        with self._lock:
            for key in keys:
                value = self._values.get((encoder, key))
                if value is not None:
                    self._values.move_to_end((encoder, key))
                    found[key] = value
        return found

    def put(self, encoder: str, values: Mapping[str, bytes]) -> None:
        """Remember, and forget the oldest beyond the limit."""
        with self._lock:
            for key, value in values.items():
                self._values[(encoder, key)] = value
                self._values.move_to_end((encoder, key))
            while len(self._values) > self._limit:
                self._values.popitem(last=False)


def _files(folder: Path) -> list[Path]:
    """All files of a folder in a fixed order; links count as what they point to, so that hub caches can be put."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.relative_to(folder).as_posix()
    )


def _line(name: Path, digest: str) -> bytes:
    return f"{name.as_posix()}\0{digest}\n".encode()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _look(folder: Path) -> _Look:
    seen = []
    for path in _files(folder):
        if path.is_symlink():
            raise UntrustedBundle(f"base {folder.name[:12]} holds a link; delete that folder and restore it")
        stat = path.stat()
        seen.append(
            (path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        )
    return tuple(seen)


def _copy(source: Path, target: Path) -> str:
    """Copy all files, sync them, and return the digest of the bytes that were written, which the source may outlive
    or not.
    """
    total = hashlib.sha256()
    for path in _files(source):
        name = path.relative_to(source)
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("rb") as reader, copy.open("wb") as writer:
            while block := reader.read(_BLOCK):
                digest.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        copy.chmod(0o444)
        total.update(_line(name, digest.hexdigest()))
    return total.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
