"""Folders and files of a deployment's home that may go: found here as paths, removed in one rename each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

_GOING = ".removed-"
_DIGEST_SIGNS = frozenset("0123456789abcdef")


def old_workspaces(
    work: Path, before: datetime, finished: Callable[[Iterable[UUID], datetime], Mapping[UUID, bool]]
) -> list[Path]:
    """Folders of jobs that ended before that moment, and of jobs that nobody knows once they are as old; never of an open job."""
    folders = {identity: path for path in _children(work) if (identity := _uuid(path.name)) is not None}
    known = finished(folders.keys(), before)
    return sorted(
        path
        for identity, path in folders.items()
        if known.get(identity, identity not in known and _older(path, before))
    )


def half_made(folders: Iterable[Path], before: datetime) -> list[Path]:
    """What a killed copy left behind: the stores make everything under a hidden name first; older than that moment."""
    return sorted(
        path for folder in folders for path in _children(folder) if path.name.startswith(".") and _older(path, before)
    )


def cached_bundles(cache: Path, in_play: Callable[[str], Collection[str]], before: datetime) -> list[Path]:
    """Verified copies of versions that are not in play, fetched before that moment; whoever needs one fetches it again."""
    found = []
    for agent in _children(cache):
        if agent.name.startswith(".") or not agent.is_dir():
            continue
        hot = in_play(agent.name)
        found += [
            path
            for path in _children(agent)
            if not path.name.startswith(".") and path.name.rsplit("-", 1)[0] not in hot and _older(path, before)
        ]
    return sorted(found)


def unnamed_bases(bases: Path, kept: Collection[str], before: datetime) -> list[Path]:
    """Encoders that no kept version names, put there before that moment: a training that has just made one is not yet released."""
    return sorted(
        path
        for path in _children(bases)
        if len(path.name) == 64
        and _DIGEST_SIGNS.issuperset(path.name)
        and path.name not in kept
        and _older(path, before)
    )


def old_logs(folders: Iterable[Path], before: datetime) -> list[Path]:
    """Log files last written before that moment, anywhere below; links are not followed."""
    return sorted(
        Path(root) / name
        for folder in folders
        for root, _, names in os.walk(folder)
        for name in names
        if not (Path(root) / name).is_symlink() and _older(Path(root) / name, before)
    )


def empty_folders(folder: Path, before: datetime) -> list[Path]:
    """Folders below with nothing in them, or with nothing but such folders; the deepest first, ``folder`` itself never."""
    empty: set[str] = set()
    for root, folders, names in os.walk(folder, topdown=False):
        inside = all(os.path.join(root, name) in empty for name in folders)
        if root != str(folder) and inside and not names and _older(Path(root), before):
            empty.add(root)
    return sorted((Path(one) for one in empty), key=lambda path: (-len(path.parts), path))


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a folder, as their lengths say; what vanishes meanwhile counts nothing."""
    return sum(_length(one) for one in _files(path))


def remove(path: Path) -> None:
    """Take a file or a whole folder away. A folder is renamed first, so that a reader finds all of it or nothing.

    Killed in between, the hidden rest is one of ``half_made``. What is gone already is no error.
    """
    try:
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return
        if path.name.startswith("."):
            going = path
        else:
            going = path.with_name(f"{_GOING}{uuid4().hex}")
            os.rename(path, going)
        shutil.rmtree(going)
    except FileNotFoundError:
        return


def remove_empty(path: Path) -> bool:
    """Take a folder away unless something came into it."""
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for root, _, names in os.walk(path):
        yield from (Path(root) / name for name in names)


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _older(path: Path, before: datetime) -> bool:
    try:
        return path.lstat().st_mtime < before.timestamp()
    except FileNotFoundError:
        return False


def _uuid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None
