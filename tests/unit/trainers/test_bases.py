"""The base store: content-addressed, idempotent, checked; and the embedding memory."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from perennial.errors import TrainingError, UntrustedBundle
from perennial.trainers.bases import LocalBaseStore, MemoryEmbeddings, folder_digest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "model.safetensors").write_bytes(b"weights" * 1000)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> LocalBaseStore:
    return LocalBaseStore(folder=tmp_path / "bases")


def test_put_is_idempotent_and_path_gives_the_same_bytes(store: LocalBaseStore, source: Path) -> None:
    digest = store.put(source)
    assert store.put(source) == digest == folder_digest(source) == folder_digest(store.path(digest))
    assert [path.name for path in store.folder.iterdir()] == [digest]
    assert (store.path(digest) / "sub" / "model.safetensors").read_bytes() == b"weights" * 1000


def test_a_base_that_is_put_again_is_young_again(store: LocalBaseStore, source: Path) -> None:
    digest = store.put(source)
    os.utime(store.path(digest), (0, 0))
    store.put(source)
    assert time.time() - (store.folder / digest).stat().st_mtime < 60


def test_the_digest_depends_on_names_and_bytes_alone(source: Path) -> None:
    before = folder_digest(source)
    os.utime(source / "config.json", (1, 1))
    assert folder_digest(source) == before
    (source / "config.json").rename(source / "config2.json")
    renamed = folder_digest(source)
    (source / "config2.json").write_text("{ }")
    assert len({before, renamed, folder_digest(source)}) == 3


@pytest.mark.parametrize("damage", ["changed", "added", "removed", "link"])
def test_damage_is_refused_also_after_a_good_check(store: LocalBaseStore, source: Path, damage: str) -> None:
    digest = store.put(source)
    folder = store.path(digest)
    weights = folder / "sub" / "model.safetensors"
    weights.chmod(0o644)
    time.sleep(0.01)  # file times have a resolution
    if damage == "changed":
        looked = weights.stat()
        weights.write_bytes(b"Weights" * 1000)
        os.utime(weights, ns=(looked.st_atime_ns, looked.st_mtime_ns))  # same size, same time of change
    elif damage == "added":
        (folder / "evil.py").write_text("import os")
    elif damage == "removed":
        weights.unlink()
    else:
        (folder / "more.json").symlink_to(source / "config.json")
    with pytest.raises(UntrustedBundle):
        store.path(digest)
    with pytest.raises(UntrustedBundle):
        store.put(source)


def test_a_missing_base_and_a_name_that_is_no_digest_are_refused(store: LocalBaseStore, source: Path) -> None:
    store.put(source)
    for name in ("0" * 64, "../source", "", "A" * 64, "0" * 63):
        with pytest.raises(UntrustedBundle):
            store.path(name)


def test_an_empty_folder_is_no_base(store: LocalBaseStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="holds no file"):
        store.put(tmp_path / "empty")


def test_many_may_put_at_once_and_a_half_copy_is_never_seen(store: LocalBaseStore, source: Path) -> None:
    (store.folder / ".staging-dead").mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: store.put(source), range(24)))
    assert len(digests) == 1
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([".staging-dead", *digests])
    store.path(digests.pop())


def test_links_of_a_hub_cache_are_stored_as_files(store: LocalBaseStore, source: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    (linked / "config.json").symlink_to(source / "config.json")
    folder = store.path(store.put(linked))
    assert not (folder / "config.json").is_symlink()
    assert (folder / "config.json").read_text() == "{}"


def test_the_memory_forgets_the_oldest() -> None:
    memory = MemoryEmbeddings(2)
    memory.put("e", {"a": b"1", "b": b"2"})
    assert memory.get("e", ["a"]) == {"a": b"1"}
    memory.put("e", {"c": b"3"})
    assert memory.get("e", ["a", "b", "c"]) == {"a": b"1", "c": b"3"}
    assert memory.get("other", ["a"]) == {}
