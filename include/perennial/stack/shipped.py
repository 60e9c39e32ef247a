"""The DAG files, the example agent and the pools that come with the package, and their copies in another Airflow.

A copy remembers the digests of what it wrote (``.perennial-dags.json``), so that a later version replaces its own files and keeps,
and names, those that somebody edited.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import perennial
from perennial.errors import StackError
from perennial.stack.files import read_json, write_private

RECORD = ".perennial-dags.json"
DAGS, FLEET = "dags", "fleet"
SETTINGS = "airflow_settings.yaml"
_CHECKOUT = {DAGS: "dags", FLEET: "include/fleet"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What a copy did, by file name."""

    written: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()  # of an earlier version, and not shipped any more
    kept: tuple[str, ...] = field(default=())  # somebody edited them; they were left alone


def shipped(kind: str) -> dict[str, bytes]:
    """The files of ``dags`` or ``fleet`` by name: of the checkout that the package lies in, else of the installed package.

    Raises StackError when the installation has neither.
    """
    checkout = _checkout()
    if checkout is not None:
        found = sorted((checkout / _CHECKOUT[kind]).glob("*.py"))
    else:
        found = [path for path in _installed() if path.parent.name == kind and path.suffix == ".py"]
    if not found:
        raise StackError(f"this installation of perennial has no {kind} files; install its wheel again")
    return {path.name: path.read_bytes() for path in found}


def shipped_settings() -> Path:
    """Our own ``airflow_settings.yaml``; StackError when the installation has none."""
    checkout = _checkout()
    found = [checkout / SETTINGS] if checkout is not None else [path for path in _installed() if path.name == SETTINGS]
    if not found or not found[0].is_file():
        raise StackError(f"this installation of perennial has no {SETTINGS}; name a file")
    return found[0]


def _checkout() -> Path | None:
    folder = Path(perennial.__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "dags").is_dir() else None


def _installed() -> list[Path]:
    """What the wheel put under ``share/perennial`` of the environment; its record knows where that is."""
    try:
        listed = files("perennial") or ()
    except PackageNotFoundError:
        return []
    return sorted(Path(str(path.locate())).resolve() for path in listed if "share/perennial/" in path.as_posix())


def copy(contents: Mapping[str, bytes], folder: Path, *, force: bool = False) -> Copied:
    """Bring a folder up to date with ``contents``; repeating it changes nothing. ``force`` overwrites what somebody edited too.

    Only files that an earlier copy wrote are removed. Raises StackError when the folder cannot be written.
    """
    record = folder / RECORD
    written, unchanged, removed, kept = [], [], [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = {str(name): str(digest) for name, digest in read_json(record).items()}
        for name, content in sorted(contents.items()):
            place = folder / name
            present = place.read_bytes() if place.is_file() else None
            if present == content:
                unchanged.append(name)
            elif present is None or force or before.get(name) == _digest(present):
                _replace(place, content)
                written.append(name)
            else:
                kept.append(name)
        for name in sorted(set(before) - set(contents)):
            place = folder / name
            if place.is_file() and _digest(place.read_bytes()) == before[name]:
                place.unlink()
                removed.append(name)
        ours = {name: _digest(contents[name]) for name in contents if name not in kept}
        edited = {name: before[name] for name in kept if name in before}
        write_private(record, json.dumps(ours | edited, indent=1, sort_keys=True))
    except OSError as error:
        raise StackError(f"{folder} cannot be written ({error.strerror}); choose a folder of your own") from error
    return Copied(written=tuple(written), unchanged=tuple(unchanged), removed=tuple(removed), kept=tuple(kept))


def _replace(place: Path, content: bytes) -> None:
    """In one step: a DAG processor never reads half a file. Readable for the user that Airflow runs as."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.chmod(0o644)
    draft.replace(place)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
