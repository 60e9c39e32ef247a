"""A release as one file that travels between deployments: bundle, signature, encoders, and a header that says what it is.

A plain tar (POSIX pax), not compressed, so that nothing in it unfolds to more than it is. Reading trusts nothing: each name must be one
of those that a release can have, each entry a plain file, each once, and the sizes are bounded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from perennial.errors import UntrustedBundle
from perennial.registry.bundle import signature_path
from perennial.registry.files import listing

FORMAT = 1
HEADER = "header.json"
_BUNDLE, _SIGNATURE, _BASES = "bundle", "bundle.sig", "bases"
_MOST_FILES = 2_000
_MOST_BYTES = 8 * 1024**3
_MOST_HEADER = 64 * 1024
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_NAMES = re.compile(rf"^(header\.json|bundle\.sig|bundle(/{_PART}){{1,5}}|bases/[0-9a-f]{{64}}(/{_PART}){{1,8}})$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the file says that it holds; believed only as far as the signed manifest says the same."""

    agent: str
    version: str
    digest: str
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """An archive on disk, unverified: its header, the bundle with the signature beside it, and encoder folders by digest."""

    header: Header
    bundle: Path
    signature: Path
    bases: Mapping[str, Path]


def pack(out: Path, header: Header, bundle: Path, signature: Path, bases: Mapping[str, Path]) -> None:
    """Write one release to ``out``: whole or not at all."""
    aside = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add_bytes(tar, HEADER, json.dumps(asdict(header), sort_keys=True).encode())
                for path in listing(bundle):
                    _add(tar, f"{_BUNDLE}/{path}", bundle / path)
                _add(tar, _SIGNATURE, signature)
                for digest, folder in sorted(bases.items()):
                    for file_path in sorted(path for path in folder.rglob("*") if path.is_file()):
                        _add(tar, f"{_BASES}/{digest}/{file_path.relative_to(folder).as_posix()}", file_path)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """Nothing of this machine is in it: no owner, no time."""
    if not _NAMES.match(name):
        raise UntrustedBundle(f"{name!r} cannot travel: a release holds no file of such a name")
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    with open(path, "rb") as reader:
        tar.addfile(_entry(name, path.stat().st_size), reader)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    import io

    tar.addfile(_entry(name, len(content)), io.BytesIO(content))


def unpack(file: Path, into: Path, *, most_bytes: int = _MOST_BYTES) -> Opened:
    """Lay an archive out below ``into``, a private folder. UntrustedBundle for anything but a release, before it is written.

    Refused: links, devices, folders, names outside of the closed list (``..``, absolute ones, hidden ones), a name twice, more than
    2,000 files or ``most_bytes``, compression. Nothing is verified here: see ``registry.signing``.
    """
    try:
        with tarfile.open(file, mode="r:") as tar:
            seen = _lay_out(tar, into, most_bytes)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UntrustedBundle(
            f"{file.name} is no archive of a release ({type(error).__name__}); export it again"
        ) from error
    if HEADER not in seen or _SIGNATURE not in seen:
        raise UntrustedBundle(f"{file.name} lacks its header or its signature; export it again")
    bundle = into / _BUNDLE
    bases = {path.name: path for path in sorted((into / _BASES).iterdir())} if (into / _BASES).is_dir() else {}
    return Opened(header=_header(into / HEADER), bundle=bundle, signature=signature_path(bundle), bases=bases)


def _lay_out(tar: tarfile.TarFile, into: Path, most_bytes: int) -> set[str]:
    seen: set[str] = set()
    total = 0
    for entry in _entries(tar):
        name, total = entry.name, total + entry.size
        if not entry.isreg() or entry.issparse():
            raise UntrustedBundle(f"{name[:120]!r} of the archive is no plain file; nothing of it is loaded")
        if not _NAMES.match(name) or name in seen:
            raise UntrustedBundle(
                f"{name[:120]!r} is no file that a release can hold, or is there twice; nothing of it is loaded"
            )
        if len(seen) >= _MOST_FILES or total > most_bytes or (name == HEADER and entry.size > _MOST_HEADER):
            raise UntrustedBundle("the archive is larger than any release; nothing of it is loaded")
        reader = tar.extractfile(entry)
        assert reader is not None  # a plain file
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        seen.add(name)
    return seen


def _entries(tar: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    return iter(tar)


def _header(path: Path) -> Header:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = Header(**value)
        if found.format != FORMAT or not all(
            isinstance(part, str) for part in (found.agent, found.version, found.digest)
        ):
            raise ValueError(found.format)
        return found
    except (ValueError, TypeError, RecursionError) as error:
        raise UntrustedBundle(
            f"the header of the archive is not readable ({type(error).__name__}); export it again"
        ) from error
