"""From judged components to a recorded version: once, wherever it is killed, and never two under one name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perennial.errors import StoreUnavailable, VersionExists
from perennial.registry import release as module
from perennial.registry.bundle import bundle_digest, content_digest
from perennial.registry.folder_store import FolderStore
from perennial.registry.ledger import Ledger
from perennial.registry.manifest import Manifest
from perennial.registry.memory import MemoryLedger
from perennial.registry.release import make_release
from perennial.registry.rows import Release
from perennial.registry.signing import verify_bundle
from tests.unit.registry.samples import PASSWORD, REPORT, Keys, components, manifest


class Job:
    """One job with judged components, that can try to release as often as it is let."""

    def __init__(self, room: Path, ledger: Ledger, store: FolderStore, keys: Keys, *, part: str = "patch") -> None:
        self.id, self.room, self.described = str(uuid4()), room, 0
        self.candidate = components(room / "candidate")
        self._given: dict[str, Any] = {
            "ledger": ledger, "store": store, "agent": "scout", "job_id": self.id, "part": part, "tasks": self.candidate / "tasks",
            "describe": self.describe, "gate_report": REPORT, "out": room / "release", "key_file": keys.private,
            "password": PASSWORD, "tags": {"run_id": "r"},
        }  # fmt: skip

    def describe(self, version: str, order: int) -> Manifest:
        self.described += 1
        base = None if version == "1.0.0" else "1.0.0"
        return manifest(self.candidate, version=version, order=order, base_version=base, job_id=self.id)

    def release(self) -> Release:
        return make_release(**self._given)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[MemoryLedger, FolderStore]:
    return MemoryLedger(), FolderStore(tmp_path / "store")


@pytest.mark.req("K30", "K69")
def test_a_release_is_recorded_published_and_verifies(
    parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path
) -> None:
    ledger, store = parts
    job = Job(tmp_path / "job", ledger, store, keys)
    row = job.release()
    assert (row.version, row.order, str(row.job_id)) == ("1.0.0", 1, job.id)
    folder, signature = store.fetch("scout", "1.0.0", tmp_path / "back")
    copy = verify_bundle(folder, signature, keys.public, row)
    assert content_digest(copy) == content_digest(job.candidate)
    assert job.release() == row
    assert job.described == 1


@pytest.mark.req("D10")
@pytest.mark.parametrize(
    "killed_in", ["assemble", "sign", "store.publish", "ledger.record_version", "after record_version"]
)
def test_killed_anywhere_and_run_again_it_makes_one_version(
    killed_in: str, parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, store = parts
    job = Job(tmp_path / "job", ledger, store, keys)

    class Killed(BaseException):
        """Nothing catches a kill."""

    def kill_after(target: object, name: str, *, do: bool) -> None:
        real = getattr(target, name)

        def killed(*given: Any, **named: Any) -> None:
            if do:
                real(*given, **named)
            raise Killed

        monkeypatch.setattr(target, name, killed)

    with monkeypatch.context():
        if killed_in == "after record_version":
            kill_after(ledger, "record_version", do=True)
        elif "." in killed_in:
            owner, name = killed_in.split(".")
            kill_after({"store": store, "ledger": ledger}[owner], name, do=owner == "store")
        else:
            kill_after(module, killed_in, do=True)
        with pytest.raises(Killed):
            job.release()
        monkeypatch.undo()
    row = job.release()
    assert [release.version for release in ledger.versions("scout")] == ["1.0.0"]
    assert bundle_digest(store.fetch("scout", "1.0.0", tmp_path / "back")[0]) == row.digest
    assert job.described == 1


@pytest.mark.req("K73")
def test_six_jobs_at_once_get_six_versions(
    parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 40)
    ledger, store = parts
    jobs = [Job(tmp_path / f"job{number}", ledger, store, keys) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(Job.release, jobs))
    rows = ledger.versions("scout")
    assert sorted(row.version for row in rows) == [f"1.0.{number}" for number in range(6)]
    for row in rows:
        folder, signature = store.fetch("scout", row.version, tmp_path / "back" / row.version, digest=row.digest)
        verify_bundle(folder, signature, keys.public, row)


def test_a_damaged_leftover_is_made_anew(
    parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, store = parts
    job = Job(tmp_path / "job", ledger, store, keys)
    with monkeypatch.context() as patch:
        patch.setattr(module, "sign", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            job.release()
    (tmp_path / "job/release/manifest.json").write_text("")  # as a power loss would leave it
    assert job.release().version == "1.0.0"
    assert job.described == 2


def test_a_version_taken_meanwhile_is_withdrawn_and_made_anew(
    parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path
) -> None:
    ledger, store = parts
    slow, fast = (Job(tmp_path / name, ledger, store, keys) for name in ("slow", "fast"))
    describe = slow.describe

    def overtaken(version: str, order: int) -> Manifest:
        found = describe(version, order)
        fast.release()  # takes 1.0.0 while the slow one assembles
        return found

    slow._given["describe"] = overtaken
    assert slow.release().version == "1.0.1"
    assert [row.version for row in ledger.versions("scout")] == ["1.0.1", "1.0.0"]


@pytest.mark.req("D10")
def test_a_publication_that_nobody_recorded_blocks_no_later_release(
    parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, store = parts
    Job(tmp_path / "first", ledger, store, keys).release()

    def away(*_: Any, **__: Any) -> Release:
        raise StoreUnavailable("the database is away")

    for name in ("lost", "lost too"):  # killed between publication and ledger, and its job was given up
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "record_version", away)
            with pytest.raises(StoreUnavailable):
                Job(tmp_path / name, ledger, store, keys).release()
    assert Job(tmp_path / "next", ledger, store, keys).release().version == "1.0.3"
    assert Job(tmp_path / "later", ledger, store, keys).release().version == "1.0.4"
    assert [row.version for row in ledger.versions("scout")] == ["1.0.4", "1.0.3", "1.0.0"]


def test_it_gives_up_after_some_tries(parts: tuple[MemoryLedger, FolderStore], keys: Keys, tmp_path: Path) -> None:
    ledger, store = parts
    Job(tmp_path / "first", ledger, store, keys).release()
    job = Job(tmp_path / "stubborn", ledger, store, keys)
    job._given["describe"] = lambda version, order: job.describe("1.0.0", order)
    with pytest.raises(VersionExists, match="in a row"):
        job.release()
    assert len(ledger.versions("scout")) == 1
