"""Whoever serves gets verified bytes, fetched once, and never a copy that somebody changed."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from perennial.errors import NotConfigured, UntrustedBundle
from perennial.registry import cache
from perennial.registry.bundle import bundle_digest
from perennial.registry.cache import fetch_verified
from tests.unit.registry.samples import Keys, Made, OneRow, Shelf, release

pytestmark = pytest.mark.req("K69")


def _fetch(made: Made, keys: Keys, shelf: Shelf, into: Path, **more: object) -> Path:
    ledger = OneRow(more.get("row", made.row))  # type: ignore[arg-type]
    return fetch_verified("scout", made.row.version, ledger=ledger, store=shelf, public_key=keys.public, into=into)


def test_a_release_is_fetched_once_and_served_from_a_private_copy(made: Made, keys: Keys, tmp_path: Path) -> None:
    shelf = Shelf(made)
    first = _fetch(made, keys, shelf, tmp_path / "cache")
    assert _fetch(made, keys, shelf, tmp_path / "cache") == first
    assert shelf.asked == 1
    assert bundle_digest(first) == made.digest
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["scout"]


def test_another_process_verifies_again(
    made: Made, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, checks = Shelf(made), []
    _fetch(made, keys, shelf, tmp_path / "cache")
    real = cache.check_copy
    monkeypatch.setattr(cache, "check_copy", lambda *given: (checks.append(1), real(*given)))
    _fetch(made, keys, shelf, tmp_path / "cache")
    assert not checks
    cache._verified.clear()  # what a new process knows
    _fetch(made, keys, shelf, tmp_path / "cache")
    assert len(checks) == 1
    assert shelf.asked == 1


@pytest.mark.parametrize("damage", ["flip", "extra", "lost signature", "open to others"])
def test_a_damaged_copy_is_replaced(damage: str, made: Made, keys: Keys, tmp_path: Path) -> None:
    shelf = Shelf(made)
    place = _fetch(made, keys, shelf, tmp_path / "cache")
    if damage == "flip":
        (place / "tasks/news/head.safetensors").write_bytes(b"evil")
    elif damage == "extra":
        (place / "tasks/news/extra.json").write_text("{}")
    elif damage == "lost signature":
        place.with_name("bundle.sig").unlink()
    else:
        place.parent.chmod(0o777)
    again = _fetch(made, keys, shelf, tmp_path / "cache")
    assert again == place
    assert shelf.asked == 2
    assert bundle_digest(again) == made.digest
    assert sorted(path.name for path in place.parent.parent.iterdir()) == [place.parent.name]


def test_a_tampered_store_is_refused_and_leaves_nothing(made: Made, keys: Keys, tmp_path: Path) -> None:
    (made.folder / "tasks/news/head.safetensors").write_bytes(b"evil")
    for _ in range(2):
        with pytest.raises(UntrustedBundle):
            _fetch(made, keys, Shelf(made), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_an_older_signed_release_under_the_new_name_is_refused(made: Made, keys: Keys, tmp_path: Path) -> None:
    newer = release(tmp_path, keys, version="1.0.1", base_version="1.0.0", order=2)
    with pytest.raises(UntrustedBundle):
        fetch_verified(
            "scout",
            "1.0.1",
            ledger=OneRow(newer.row),
            store=Shelf(made),
            public_key=keys.public,
            into=tmp_path / "cache",
        )
    forged = replace(newer.row, digest=made.digest)  # and a row that was made to fit the old bytes
    with pytest.raises(UntrustedBundle, match="not the expected"):
        fetch_verified(
            "scout", "1.0.1", ledger=OneRow(forged), store=Shelf(made), public_key=keys.public, into=tmp_path / "cache"
        )


def test_unknown_releases_and_missing_keys_are_refused(made: Made, keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(UntrustedBundle, match=r"knows no scout 9\.9\.9"):
        fetch_verified(
            "scout", "9.9.9", ledger=OneRow(made.row), store=Shelf(made), public_key=keys.public, into=tmp_path
        )
    with pytest.raises(NotConfigured, match="PERENNIAL_VERIFY_KEY_FILE"):
        fetch_verified("scout", "1.0.0", ledger=OneRow(made.row), store=Shelf(made), public_key=None, into=tmp_path)


def test_many_readers_at_once_all_get_the_same_copy(made: Made, keys: Keys, tmp_path: Path) -> None:
    found: list[Path] = []
    shelf = Shelf(made)
    threads = [
        threading.Thread(target=lambda: found.append(_fetch(made, keys, shelf, tmp_path / "cache"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert bundle_digest(found[0]) == made.digest
