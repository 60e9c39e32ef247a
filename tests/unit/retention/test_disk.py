"""What is found old on disk, and that it goes whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from perennial.retention import disk

NOW = datetime.now(UTC)
CUT = NOW - timedelta(days=1)


def make(path: Path, *, days: float = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x" * 10)
    age(path, days)
    return path


def age(path: Path, days: float = 3) -> None:
    when = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (when, when))


def test_workspaces_of_open_jobs_stay(tmp_path: Path) -> None:
    done, running, unknown, fresh = (uuid4() for _ in range(4))
    for identity, days in ((done, 0), (running, 9), (unknown, 9), (fresh, 0)):
        make(tmp_path / str(identity) / "1" / "new.json")
        age(tmp_path / str(identity), days)
    make(tmp_path / "notes.txt")

    def finished(ids: Iterable[UUID], before: datetime) -> Mapping[UUID, bool]:
        return {one: one == done for one in ids if one in (done, running)}

    assert set(disk.old_workspaces(tmp_path, CUT, finished)) == {tmp_path / str(done), tmp_path / str(unknown)}
    assert disk.old_workspaces(tmp_path / "none", CUT, finished) == []


def test_half_made_copies_are_told_from_what_is_being_made(tmp_path: Path) -> None:
    make(tmp_path / ".staging-old" / "a")
    age(tmp_path / ".staging-old")
    make(tmp_path / ".staging-now" / "a")
    make(tmp_path / ("e" * 64) / "a")
    age(tmp_path / ("e" * 64))
    assert disk.half_made([tmp_path, tmp_path / "none"], CUT) == [tmp_path / ".staging-old"]


def test_cached_bundles_that_serve_stay(tmp_path: Path) -> None:
    for name in ("1.0.0-aaaa", "1.0.1-bbbb", "1.0.2-cccc"):
        make(tmp_path / "scout" / name / "bundle" / "f")
        age(tmp_path / "scout" / name, 0 if name.startswith("1.0.2") else 3)
    found = disk.cached_bundles(tmp_path, lambda agent: {"1.0.1"} if agent == "scout" else set(), CUT)
    assert found == [tmp_path / "scout" / "1.0.0-aaaa"]


def test_only_encoders_that_nobody_names_and_old_ones_go(tmp_path: Path) -> None:
    named, fresh, lost = "a" * 64, "b" * 64, "c" * 64
    for digest, days in ((named, 9), (fresh, 0), (lost, 9)):
        make(tmp_path / digest / "model.safetensors")
        age(tmp_path / digest, days)
    make(tmp_path / "README" / "f")
    assert disk.unnamed_bases(tmp_path, {named}, CUT) == [tmp_path / lost]


def test_logs_and_empty_folders(tmp_path: Path) -> None:
    old, young = make(tmp_path / "run=1" / "task" / "1.log"), make(tmp_path / "run=2" / "1.log", days=0)
    link = tmp_path / "latest.log"
    link.symlink_to(young)
    assert disk.old_logs([tmp_path], CUT) == [old]
    disk.remove(old)
    age(old.parent)
    age(old.parent.parent)
    empty = disk.empty_folders(tmp_path, CUT)
    assert empty == [old.parent, old.parent.parent]  # the deepest first
    assert all(disk.remove_empty(path) for path in empty)
    assert not disk.remove_empty(young.parent)
    assert young.exists()


def test_removal_is_whole_and_can_be_repeated(tmp_path: Path) -> None:
    folder = make(tmp_path / "bundle" / "a").parent
    (folder / "a").chmod(0o444)
    assert disk.size_of(folder) == 10
    for _ in range(2):
        disk.remove(folder)
    assert list(tmp_path.iterdir()) == []
    killed = make(tmp_path / ".removed-1" / "a").parent
    disk.remove(killed)
    assert not killed.exists()
    link = tmp_path / "link"
    target = make(tmp_path / "real" / "a").parent
    link.symlink_to(target)
    disk.remove(link)
    assert (target / "a").exists()
